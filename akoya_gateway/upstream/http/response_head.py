"""Judging the head of an upstream's response: no I/O.

Refused is whatever two readers could understand differently (RFC 9112 sections 2.2, 5, 6.3 and 11.2); what is
passed on is end-to-end only (RFC 9110 section 7.6.1).
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain
from typing import NamedTuple

from akoya_gateway.upstream.errors import InvalidResponse

Headers = list[tuple[bytes, bytes]]


class Framing(IntEnum):
    """How the end of a body is known (RFC 9112 section 6.3)."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3


class ResponseHead(NamedTuple):
    """`headers`: lower-case names, hop-by-hop fields removed. `close`: the connection must not carry another request
    (see `_must_close`). `trailers`: a `Trailer` field announced some. May be shared by many responses, so it must not
    be changed."""

    headers: Headers
    framing: Framing
    close: bool
    trailers: bool


BODILESS = (204, 304)
"""Responses without a body, whatever their head says (RFC 9110 sections 8.6 and 15.4.5)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SPECIAL = HOP_BY_HOP | {b"content-length"}
_NOT_IN_TRAILERS = HOP_BY_HOP | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"host",
    b"location",
    b"set-cookie",
    b"www-authenticate",
}
_PLAIN_CONNECTION = (b"keep-alive", b"close")
_DESCRIBE_BODY = frozenset({b"content-type", b"content-encoding", b"content-range"})
_KEEP = frozenset({b"keep-alive", b"close", b""})
_CONTROLS = bytes(c for c in range(32) if c != 9) + b"\x7f"
_MAX_LENGTH_DIGITS = 18


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list of tokens, lower case."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def parse_content_length(value: bytes) -> int:
    """RFC 9110 section 8.6: digits alone; a sign, a blank inside or a list is not a length. Raises ValueError."""
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise ValueError("content-length is not a number")
    return int(value)


def validate_head(status: int, version: str, raw: Headers, *, head_only: bool) -> ResponseHead:
    """The head as far as it may be passed on, or InvalidResponse. `head_only`: it answers HEAD."""
    if version not in ("1.1", "1.0"):
        raise InvalidResponse(f"the upstream speaks HTTP/{version}")
    if not 200 <= status <= 599:
        raise InvalidResponse(f"the upstream answered with status {status}")
    headers: Headers = []
    length: bytes | None = None
    chunked = announced = False
    connection: list[bytes] = []
    for name, value in raw:
        lower = name.lower()
        if lower not in _SPECIAL:
            headers.append((lower, value))
        elif lower == b"content-length":
            if length is not None:
                raise InvalidResponse("more than one content-length")
            length = value
        elif lower == b"transfer-encoding":
            if chunked or value.lower() != b"chunked" or version == "1.0":
                raise InvalidResponse("a transfer-encoding other than chunked")
            chunked = True
        elif lower == b"connection":
            connection += tokens(value) if value not in _PLAIN_CONNECTION else [value]
        elif lower == b"trailer":
            announced = True
    if chunked and length is not None:
        raise InvalidResponse("content-length together with transfer-encoding")
    if connection and not _KEEP.issuperset(connection):
        headers = [header for header in headers if header[0] not in connection]
    close = b"close" in connection or (version == "1.0" and b"keep-alive" not in connection)
    framing = _frame(status, length, headers, chunked=chunked, head_only=head_only)
    close = close or _must_close(framing, length, headers, chunked=chunked, head_only=head_only)
    return ResponseHead(headers, framing, close, announced and chunked)


def _must_close(framing: Framing, length: bytes | None, headers: Headers, *, chunked: bool, head_only: bool) -> bool:
    """Whether a connection that may stay open must be closed after this response, because its end is in doubt.

    A response to HEAD, a 204 and a 304 end with their head whatever it says (RFC 9112 section 6.3). Applications send a
    body all the same (gunicorn before 27 and cheroot let them), and it would be read as the next response. A 204 or 304
    whose head does not mention a body is reused, because many of them are sent.
    """
    if framing is not Framing.NONE:
        return framing is Framing.UNTIL_CLOSE
    mentions_body = chunked or (length is not None and int(length) != 0)
    return head_only or mentions_body or any(name in _DESCRIBE_BODY for name, _ in headers)


def _frame(status: int, length: bytes | None, headers: Headers, *, chunked: bool, head_only: bool) -> Framing:
    """RFC 9112 section 6.3. Appends the content-length that may be passed on."""
    bodiless = status in BODILESS
    if length is not None:
        try:
            parse_content_length(length)
        except ValueError as error:
            raise InvalidResponse(str(error)) from None
        if not bodiless:
            # A 204 must have none (RFC 9110 section 8.6); that of a 304 tells of another response, and may be left out.
            headers.append((b"content-length", length))
    if head_only or bodiless:
        return Framing.NONE
    if chunked:
        return Framing.CHUNKED
    return Framing.UNTIL_CLOSE if length is None else Framing.LENGTH


def check_size(raw: Headers, max_headers: int, max_bytes: int) -> None:
    """Not too many headers nor too large, and no control character in them (RFC 9110 section 5.5): the last is the
    parser's own check, not taken on trust."""
    joined = b"".join(chain.from_iterable(raw))
    if len(joined) > max_bytes or len(raw) > max_headers:
        raise InvalidResponse("its header section is too large")
    if len(joined.translate(None, _CONTROLS)) != len(joined):
        raise InvalidResponse("a control character in a header")


def validate_trailers(raw: Headers) -> Headers:
    """Trailer fields that may be passed on (RFC 9110 section 6.5.1): nothing that frames, routes or authenticates."""
    return [(name.lower(), value) for name, value in raw if name.lower() not in _NOT_IN_TRAILERS]
