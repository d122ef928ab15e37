"""Parses the authorization response at the redirect URI: a code, an error, or a malformed response.

RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207, and docs/akoya.md section 3. Anyone can send a callback, so the result
only states what the callback claims. Whether its `state` is valid is checked by `sessions.authorization_attempts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from akoya_gateway.config.model import Environment
from akoya_gateway.oauth.untrusted_text import is_visible_ascii, printable
from akoya_gateway.secret import Secret

MAX_QUERY = 16_384
MAX_PARAMETERS = 64
MAX_CODE = 4096
MAX_STATE = 512
MAX_ISS = 2048
MAX_ERROR = 128
MAX_DESCRIPTION = 300

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 6749 section 4.1.2.1: %x20-21 / %x23-5B / %x5D-7E.
_ERROR = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)
_READ_ONCE = (b"code", b"state", b"error", b"error_description", b"iss")


@dataclass(frozen=True, slots=True)
class CodeReceived:
    """An authorization code (visible ASCII of any form) and the state that came with it."""

    code: Secret
    state: str = field(repr=False)
    iss: str | None = None
    """The issuer that the callback names (RFC 9207 section 2), or None. Check it with `foreign_issuer`."""


@dataclass(frozen=True, slots=True)
class AuthorizationRefused:
    """The callback reports an error.

    `error` is from an open set, because any bank may define its own. `description` is for display only: printable and
    at most 300 characters. Escape it for output, and never match on it.
    """

    error: str
    description: str | None
    state: str | None = field(repr=False)
    iss: str | None = None


@dataclass(frozen=True, slots=True)
class MalformedResponse:
    """The callback is neither. `reason` quotes none of it. `state` is set if it could be read."""

    reason: str
    state: str | None = field(default=None, repr=False)


AuthorizationResponse = CodeReceived | AuthorizationRefused | MalformedResponse


class _Malformed(Exception):
    """Carries the reason to `MalformedResponse`."""


def parse_authorization_response(query: bytes) -> AuthorizationResponse:
    """Parse the raw query string of a request to the redirect URI. Never raises.

    Parameters without a value count as omitted (RFC 6749 section 3.1), and unknown parameters are ignored. Known
    parameters must not occur twice: choosing one of two codes would be a guess, and the second may come from an
    attacker who wants to connect their own bank to another user's session.

    The result contains the state even if another parameter is duplicated, so that the attempt ends as with any other
    malformed response. An attacker gains nothing by that: anyone who knows a state can also end its attempt with
    `error=access_denied`. If `state` itself occurs twice, the response cannot be assigned to an attempt, and no attempt
    is affected.
    """
    if len(query) > MAX_QUERY:
        return MalformedResponse("the query is too long")
    pieces = query.split(b"&")
    if len(pieces) > MAX_PARAMETERS:
        return MalformedResponse("too many parameters")
    found, fault = _parameters(pieces)
    state: str | None = None
    try:
        state = _visible(found, b"state", MAX_STATE)
        if fault is not None:
            raise fault
        return _build_response(found, state)
    except _Malformed as reason:
        return MalformedResponse(str(reason), state)


def foreign_issuer(callback: CodeReceived | AuthorizationRefused, environment: Environment) -> bool:
    """Return True if the callback names another issuer than the environment's: a mix-up attack (RFC 9207 section 2.4).

    The comparison is exact. False if either side names no issuer: Akoya is not known to send `iss`.
    """
    return callback.iss is not None and environment.issuer is not None and callback.iss != environment.issuer


def _build_response(found: dict[bytes, bytes], state: str | None) -> AuthorizationResponse:
    code = _visible(found, b"code", MAX_CODE)
    iss = _visible(found, b"iss", MAX_ISS)
    error = found.get(b"error")
    if code is not None and error is not None:
        raise _Malformed("both code and error")
    if error is not None:
        return AuthorizationRefused(_error(error), _description(found.get(b"error_description")), state, iss)
    if code is None:
        raise _Malformed("neither code nor error")
    if state is None:
        raise _Malformed("no state")
    return CodeReceived(Secret(code), state, iss)


def _parameters(pieces: list[bytes]) -> tuple[dict[bytes, bytes], _Malformed | None]:
    """Return the known parameters and the first error found.

    Names are percent-decoded, values are not. Parameters with an empty value and parameters that occur twice are left
    out.
    """
    found: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    fault: _Malformed | None = None
    for piece in pieces:
        raw_name, _, value = piece.partition(b"=")
        try:
            name = _decode(raw_name, "a parameter name")
        except _Malformed as unreadable:
            fault = fault or unreadable
            continue
        if name not in _READ_ONCE:
            continue
        if name in seen:
            found.pop(name, None)
            fault = fault or _Malformed(f"{name.decode()} occurs twice")
        elif value:
            found[name] = value
        seen.add(name)
    return found, fault


def _decode(raw: bytes, what: str) -> bytes:
    if _BAD_ESCAPE.search(raw):
        raise _Malformed(f"{what} is not percent-encoded correctly")
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _visible(found: dict[bytes, bytes], name: bytes, limit: int) -> str | None:
    raw = found.get(name)
    if raw is None:
        return None
    # latin-1 maps every byte to one character, so only ASCII bytes can become visible ASCII.
    value = _decode(raw, name.decode()).decode("latin-1")
    if len(value) > limit:
        raise _Malformed(f"{name.decode()} is too long")
    if not is_visible_ascii(value, limit):
        raise _Malformed(f"{name.decode()} contains characters that are not allowed")
    return value


def _error(raw: bytes) -> str:
    value = _decode(raw, "error").decode("latin-1")
    if len(value) > MAX_ERROR or _ERROR.fullmatch(value) is None:
        raise _Malformed("error contains characters that are not allowed")
    return value


def _description(raw: bytes | None) -> str | None:
    """Decode the description.

    Undecodable bytes are replaced, so that a bank's free text cannot hide the error itself.
    """
    if raw is None:
        return None
    text = unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8", "replace")
    return printable(text, MAX_DESCRIPTION) or None
