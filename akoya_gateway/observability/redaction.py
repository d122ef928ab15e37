"""Redacts anything that looks like a secret before it is logged.

This is a last line of defence: code must not log secrets in the first place. When in doubt, a value is hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from akoya_gateway.secret import Secret

HIDDEN = "[secret]"
MAX_TEXT_CHARACTERS = 4096
"""Maximum characters of one value; the rest is truncated. The limit of tracebacks is `MAX_TRACE_CHARACTERS`."""
MAX_TRACE_CHARACTERS = 16_384
MAX_DEPTH = 6
MAX_ITEMS = 64

_PARAMETERS = (
    "code",
    "state",
    "token",
    "cookie",
    "session",
    "nonce",
    "secret",
    "password",
    "passwd",
    "assertion",
    "signature",
    "code_verifier",
    "client_secret",
    "client_assertion",
    "access_token",
    "refresh_token",
    "id_token",
    "id_token_hint",
)
_SECRET_KEYS = frozenset(_PARAMETERS) | {
    "cookies",
    "tokens",
    "authorization",
    "proxy_authorization",
    "set_cookie",
    "session_id",
    "private_key",
    "bearer",
    "akoya_id_token",
    "akoya_assertion",
}
_SECRET_ENDINGS = ("_token", "_secret", "_password", "_cookie", "_verifier")

_NAMES = "|".join(_PARAMETERS)
_SUSPICIOUS = re.compile(r"[=:?@\"']|eyJ|ory_|bearer|basic", re.IGNORECASE)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Header lines first: everything after the colon is replaced, regardless of its form.
    (
        re.compile(
            r"\b((?:set-)?cookie|(?:proxy-)?authorization|akoya-(?:id-token|assertion)|signature)\s*:\s*[^\r\n]+", re.I
        ),
        rf"\1: {HIDDEN}",
    ),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.I), r"\1[userinfo]@"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#\"'<>]*)\?[^\s\"'<>]*", re.I), r"\1?[query]"),
    (re.compile(r"\b(bearer)\s+[A-Za-z0-9+/=._~-]{6,}", re.I), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(basic)\s+(?=\S*[0-9=])[A-Za-z0-9+/=._~-]{6,}", re.I), rf"\1 {HIDDEN}"),
    # A truncated JWT is a secret, too: match any base64url text that starts like a JSON object.
    (re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*"), HIDDEN),
    (re.compile(r"\bory_[A-Za-z0-9._~-]{4,}"), HIDDEN),
    (
        re.compile(
            rf"(?<!_)({_NAMES}|\w+_(?:token|secret|password|cookie|verifier))=(?!\[secret\])[^\s&;,\"')]+", re.I
        ),
        rf"\1={HIDDEN}",
    ),
    (re.compile(rf"([\"'])({_NAMES})\1(\s*[:,]\s*)b?([\"'])[^\"']*\4", re.I), rf"\1\2\1\3\4{HIDDEN}\4"),
)
# C0, DEL, C1, line separators, bidirectional marks, BOM and surrogates: all that could start a new line or repaint a
# terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def is_secret_name(name: str) -> bool:
    """Return True if a value of this name must be hidden. Ignores case and the difference between `-` and `_`."""
    folded = name.lower().replace("-", "_")
    return folded in _SECRET_KEYS or folded.endswith(_SECRET_ENDINGS)


def redact_text(text: str, longest: int = MAX_TEXT_CHARACTERS) -> str:
    """Mask tokens, credentials, and queries and user information of URLs. Truncates to `longest` characters."""
    if len(text) > longest:
        text = text[:longest] + "..."
    if _SUSPICIOUS.search(text) is not None:
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
    return text


def escape_controls(text: str) -> str:
    r"""Escape control characters as `\\n`, `\\x1b`, `\\u2028`, so that one event stays one line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def redact(value: Any, depth: int = 0) -> Any:
    """Return the value with secrets replaced, as plain JSON types, bounded in depth and width."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, str):
        return redact_text(str(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return redact_text(bytes(value[:MAX_TEXT_CHARACTERS]).decode("latin-1"))
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return _redact_mapping(value, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _redact_sequence(value, depth)
    return redact_text(_safe_repr(value))


def redact_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Redact the fields of one event. Their number is not bounded: the field names come from the code."""
    return {name: HIDDEN if is_secret_name(name) else redact(value) for name, value in event.items()}


def _redact_mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    redacted: dict[str, Any] = {}
    for key, each in value.items():
        if len(redacted) == MAX_ITEMS:
            redacted["..."] = f"{len(value) - MAX_ITEMS} more"
            break
        name = _name(key)
        redacted[redact_text(name)] = HIDDEN if is_secret_name(name) else redact(each, depth + 1)
    return redacted


def _redact_sequence(value: Iterable[Any], depth: int) -> list[Any]:
    items = list(value)
    # A name-value pair such as ("cookie", "...").
    if len(items) == 2 and isinstance(items[0], (str, bytes)) and is_secret_name(_name(items[0])):
        return [redact(items[0]), HIDDEN]
    redacted = [redact(each, depth + 1) for each in items[:MAX_ITEMS]]
    return redacted if len(items) <= MAX_ITEMS else [*redacted, f"... {len(items) - MAX_ITEMS} more"]


def _name(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # a broken repr must not break the request that logs it
        return f"<{type(value).__name__}>"
