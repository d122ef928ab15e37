"""Encodes claims as header values. This is done once per grant, not per request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

from akoya_gateway.errors import OperatorError
from akoya_gateway.signing import header_names
from akoya_gateway.signing.claims import Headers, UpstreamClaims
from akoya_gateway.signing.structured_fields import connections, strings

_VISIBLE = re.compile(r"[\x21-\x7e]++(?: [\x21-\x7e]++)*+")
_UNENCODED = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "%")


_Member = TypeVar("_Member")


class UnencodableHeaderValue(OperatorError):
    """A value cannot be represented in a header. The message names the header, never the value."""

    status = 500
    code = "unencodable-value"


def headers(claims: UpstreamClaims) -> Headers:
    """Return the `Akoya-*` headers of docs/design.md section 5, in the order of `header_names.PASSED_NAMES`.

    Empty values are omitted, so that a missing header and an empty one cannot be confused. In `Akoya-Owner`, `%` and
    all characters other than visible ASCII are percent-encoded. Other values must be words of visible ASCII separated
    by single spaces.

    Raises:
        UnencodableHeaderValue: A value cannot be represented in a header.
    """
    expires = None if claims.expires_at is None else str(int(claims.expires_at))
    values = {
        header_names.CONNECTOR: claims.connector,
        header_names.ID_TOKEN: None if claims.bearer is None else claims.bearer.reveal(),
        header_names.EXPIRES: expires,
        header_names.SCOPE: " ".join(claims.scope),
        header_names.ENVIRONMENT: claims.environment,
        header_names.OWNER: quote(claims.owner, safe=_UNENCODED),
        header_names.CONNECTIONS: _dictionary("Akoya-Connections", connections, claims.connections),
        header_names.PROVIDER: claims.provider,
        header_names.GRANT: claims.grant,
        header_names.CONSENT: claims.consent,
        header_names.INTERACTION_TYPE: claims.interaction_type,
        header_names.LAST_ACCESS: None if claims.last_access is None else timestamp(claims.last_access),
        header_names.ID_TOKENS: _dictionary("Akoya-Id-Tokens", strings, claims.id_tokens),
    }
    return [(name, _value(name, text)) for name, text in values.items() if text]


def timestamp(seconds: int) -> str:
    """Return Unix seconds as an RFC 3339 timestamp in UTC, such as `2026-11-30T12:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _dictionary(name: str, encode: Callable[[Sequence[_Member]], str], members: Sequence[_Member]) -> str:
    try:
        return encode(members)
    except ValueError as fault:
        raise UnencodableHeaderValue(f"{name}: {fault}") from fault


def _value(name: bytes, text: str) -> bytes:
    if not _VISIBLE.fullmatch(text):
        raise UnencodableHeaderValue(f"{name.decode().title()} would hold a character that a header cannot carry")
    return text.encode("ascii")


def size(added: Headers) -> int:
    """Return the size of these headers in an HTTP/1.1 head, in bytes: `name: value` and CRLF."""
    return sum(len(name) + len(value) + 4 for name, value in added)


def lines(added: Headers) -> bytes:
    """Return these headers as the lines of an HTTP/1.1 head."""
    return b"".join(b"%b: %b\r\n" % header for header in added)
