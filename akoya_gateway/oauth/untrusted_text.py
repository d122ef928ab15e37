"""Validates text and JSON from untrusted sources before they are used, logged or forwarded."""

from __future__ import annotations

import json
import re
from typing import Any

from akoya_gateway.secret import Secret

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+", re.ASCII)
_MAX_JSON_DEPTH = 32
_MIN_SECRET_LENGTH = 4
_MASK = "[...]"
_LIKE_A_TOKEN = re.compile(
    r"(?=[A-Za-z_~+=%-]*[0-9])[A-Za-z0-9_~+=%-]{12,}|eyJ[A-Za-z0-9_-]{4,}|[A-Za-z0-9_~+=%-]{40,}", re.ASCII
)


def is_visible_ascii(value: object, limit: int) -> bool:
    """Return True for a string of 1 to `limit` VCHARs (RFC 5234), which is safe in a header field or a log line."""
    return isinstance(value, str) and len(value) <= limit and _VISIBLE_ASCII.fullmatch(value) is not None


def is_plain_text(value: object, limit: int) -> bool:
    """Return True for a string of 1 to `limit` printable characters.

    It has no control characters and no lone surrogates, so it can be encoded.
    """
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable()


def error_code(value: object) -> str:
    """Return the `error` code if it is visible ASCII of at most 64 characters, and `unreadable` otherwise.

    The result is safe for logs and metrics.
    """
    return str(value) if is_visible_ascii(value, 64) else "unreadable"


def printable(value: str, limit: int) -> str:
    """Return text for display: without unprintable characters, with whitespace folded, at most `limit` characters."""
    folded = " ".join(value[: 4 * limit].split())
    text = "".join(c for c in folded if c.isprintable())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_secrets(text: str, secrets: tuple[Secret, ...]) -> str:
    """Return the text with each secret masked, and everything that looks like a token or a part of one."""
    for secret in secrets:
        value = secret.reveal()
        if len(value) >= _MIN_SECRET_LENGTH:
            text = text.replace(value, _MASK)
    return _LIKE_A_TOKEN.sub(_MASK, text)


class UnreadableJSON(ValueError):
    """Not one JSON object, or one that two parsers could read differently. The text never quotes the document."""


def json_object(document: bytes) -> dict[str, Any]:
    """Read one JSON object (RFC 8259) strictly: UTF-8, no duplicate member names, no NaN or Infinity, no deep nesting.

    The caller must have limited the size. Raises only `UnreadableJSON`.
    """
    try:
        value = json.loads(document.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
    except UnreadableJSON:
        raise
    except RecursionError:
        raise UnreadableJSON("JSON nested too deeply") from None
    except ValueError:
        raise UnreadableJSON("not JSON") from None
    if not isinstance(value, dict):
        raise UnreadableJSON("not a JSON object")
    _refuse_depth(value)
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnreadableJSON("a member name occurs twice")
    return members


def _refuse_constant(_: str) -> Any:
    raise UnreadableJSON("a number that JSON does not have")


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise UnreadableJSON("JSON nested too deeply")
