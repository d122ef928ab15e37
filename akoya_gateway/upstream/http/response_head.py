"""Validates the response head of an upstream. Does no I/O.

Responses that two HTTP parsers could interpret differently are rejected (RFC 9112 sections 2.2, 5, 6.3 and 11.2). Only
end-to-end headers are passed on (RFC 9110 section 7.6.1).
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain
from typing import NamedTuple

from akoya_gateway.upstream.errors import InvalidResponse

Headers = list[tuple[bytes, bytes]]


class Framing(IntEnum):
    """How the end of a body is determined (RFC 9112 section 6.3)."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3


class ResponseHead(NamedTuple):
    """A validated response head. May be shared by many responses, so it must not be changed.

    Attributes:
        headers: End-to-end headers with lower-case names.
        framing: How the end of the body is determined.
        close: The connection must not be reused (see `_must_close`).
        trailers: A `Trailer` header announced trailers.
    """

    headers: Headers
    framing: Framing
    close: bool
    trailers: bool


BODILESS = (204, 304)
"""Statuses that never have a body, even if the head describes one (RFC 9110 sections 8.6 and 15.4.5)."""
DESCRIBE_BODY = frozenset({b"content-type", b"content-encoding", b"content-range"})
"""Headers that describe a body. After a 204 or 304 with one of them the connection is closed (see `_must_close`)."""

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
_HARMLESS_CONNECTION_OPTIONS = frozenset({b"keep-alive", b"close", b""})
_CONTROLS = bytes(c for c in range(32) if c != 9) + b"\x7f"
_MAX_LENGTH_DIGITS = 18
_MAX_LINE_BREAKS = 16


def is_event_stream(content_type: bytes) -> bool:
    """Return True for the Content-Type of an event stream (WHATWG HTML, server-sent events), which may never end."""
    return content_type[:17].lower() == b"text/event-stream"


def begins_event_stream(headers: Headers) -> bool:
    """Return True if the body after this head is an event stream."""
    return any(name == b"content-type" and is_event_stream(value) for name, value in headers)


def tokens(value: bytes) -> list[bytes]:
    """Return the members of a comma-separated list of tokens in lower case."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def parse_content_length(value: bytes) -> int:
    """Parse a Content-Length value (RFC 9110 section 8.6).

    Raises:
        ValueError: The value contains anything but digits, such as a sign, a space or a list, or is too long.
    """
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise ValueError("content-length is not a number")
    return int(value)


def validate_head(status: int, version: str, raw: Headers, *, head_only: bool) -> ResponseHead:
    """Return the validated response head with the headers that may be passed on.

    Args:
        status: The status code.
        version: The HTTP version, such as `1.1`.
        raw: The headers as received.
        head_only: The response is for a HEAD request.

    Raises:
        InvalidResponse: The head is invalid or ambiguous.
    """
    if version not in ("1.1", "1.0"):
        raise InvalidResponse(f"the upstream speaks HTTP/{version}")
    if not 200 <= status <= 599:
        raise InvalidResponse(f"the upstream responded with status {status}")
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
    if connection and not _HARMLESS_CONNECTION_OPTIONS.issuperset(connection):
        headers = [header for header in headers if header[0] not in connection]
    close = b"close" in connection or (version == "1.0" and b"keep-alive" not in connection)
    framing = _frame(status, length, headers, chunked=chunked, head_only=head_only)
    close = close or _must_close(framing, length, headers, chunked=chunked, head_only=head_only)
    return ResponseHead(headers, framing, close, announced and chunked)


def _must_close(framing: Framing, length: bytes | None, headers: Headers, *, chunked: bool, head_only: bool) -> bool:
    """Return True if the connection must not be reused, because the end of this response is uncertain.

    A response to HEAD, a 204 and a 304 always end with their head (RFC 9112 section 6.3). Some applications
    nevertheless send a body (gunicorn before 27 and cheroot allow it), which would be parsed as the next response.
    After a 204 or 304 whose head does not describe a body the connection is still reused, because such responses are
    frequent.
    """
    if framing is not Framing.NONE:
        return framing is Framing.UNTIL_CLOSE
    mentions_body = chunked or (length is not None and int(length) != 0)
    return head_only or mentions_body or any(name in DESCRIBE_BODY for name, _ in headers)


def _frame(status: int, length: bytes | None, headers: Headers, *, chunked: bool, head_only: bool) -> Framing:
    """Return the framing (RFC 9112 section 6.3), and append the Content-Length that may be passed on to `headers`."""
    bodiless = status in BODILESS
    if length is not None:
        try:
            parse_content_length(length)
        except ValueError as error:
            raise InvalidResponse(str(error)) from None
        if not bodiless:
            # A 204 must not have a Content-Length (RFC 9110 section 8.6). The one of a 304 describes the response to a
            # different request and may be omitted.
            headers.append((b"content-length", length))
    if head_only or bodiless:
        return Framing.NONE
    if chunked:
        return Framing.CHUNKED
    return Framing.UNTIL_CLOSE if length is None else Framing.LENGTH


def check_size(raw: Headers, max_headers: int, max_bytes: int) -> None:
    """Raise InvalidResponse for too many or too large headers, or control characters in them (RFC 9110 section 5.5).

    The parser checks for control characters too. The check is repeated so that the gateway does not depend on it.
    """
    joined = b"".join(chain.from_iterable(raw))
    if len(joined) > max_bytes or len(raw) > max_headers:
        raise InvalidResponse("its header section is too large")
    if len(joined.translate(None, _CONTROLS)) != len(joined):
        raise InvalidResponse("a control character in a header")


def validate_trailers(raw: Headers) -> Headers:
    """Return the trailers that may be passed on (RFC 9110 section 6.5.1).

    Fields for framing, routing or authentication are removed.
    """
    return [(name.lower(), value) for name, value in raw if name.lower() not in _NOT_IN_TRAILERS]


def has_line_breaks_behind(data: bytes, last_chunk: bytes, before: bytes) -> bool:
    """Return True if line breaks follow the response that ends in `data`, or if that is uncertain.

    The parser skips line breaks before a response, and does not report them. They may be the beginning of a body that
    is longer than its Content-Length, whose rest is still to come.

    Args:
        data: The last bytes received. They end in CR or LF, and the parser found no other bytes after the response.
        last_chunk: The last bytes of a body with a Content-Length; empty for every other response.
        before: `line_breaks_at_end` of the bytes before `data`.
    """
    found = line_breaks_at_end(data, before)
    if not last_chunk:
        return found != b"\r\n\r\n"
    if data == last_chunk:
        return False
    in_body = line_breaks_at_end(last_chunk)
    # A body of line breaks follows those of the head.
    expected = in_body if len(in_body) < len(last_chunk) else b"\r\n\r\n" + in_body
    return found != expected or len(found) == _MAX_LINE_BREAKS


def line_breaks_at_end(data: bytes, before: bytes = b"") -> bytes:
    """Return the CR and LF at the end of `data`, at most 16. `before`: the result for the bytes before `data`."""
    end = data[-_MAX_LINE_BREAKS:]
    found = end[len(end.rstrip(b"\r\n")) :]
    return (before + found)[-_MAX_LINE_BREAKS:] if len(found) == len(data) else found
