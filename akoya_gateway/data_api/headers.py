"""The headers of a call and of its response to the client. No I/O.

Both are allow lists. The data comes from banks and is served from the app's origin, so a response must not run scripts
there, set cookies, allow other origins to read it (CORS), or redirect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from akoya_gateway.access.request import Headers
from akoya_gateway.config.model import DataApi
from akoya_gateway.secret import Secret

INTERACTION_ID = b"x-akoya-interaction-id"
"""Akoya's ID of the call, which its support asks for."""

NO_CONTENT = frozenset({204, 304})
"""Statuses whose responses have no content."""

_FROM_CLIENT = frozenset(
    {
        b"accept",
        b"accept-language",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    }
)
_TO_CLIENT = frozenset(
    {
        b"accept-ranges",
        b"allow",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"etag",
        b"expires",
        b"last-modified",
        b"retry-after",
        INTERACTION_ID,
    }
)
PROBLEM_JSON = b"application/problem+json"
_CONFINED: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
    (b"cache-control", b"private, no-store"),
]
_VALUE = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_headers(client_headers: Iterable[tuple[bytes, bytes]], *, has_body: bool) -> Headers:
    """Return the client headers to forward: content negotiation, conditions and ranges.

    If there is a body, its type and length are forwarded as well.
    """
    allowed = _FROM_CLIENT | {b"content-type", b"content-length"} if has_body else _FROM_CLIENT
    return [(name, value) for name, value in client_headers if name in allowed and _VALUE.fullmatch(value)]


def context_headers(api: DataApi, bearer: Secret, interaction_type: str, last_access: str) -> Headers:
    """Return the gateway's own headers of a call (docs/akoya.md section 6).

    Args:
        api: The data API.
        bearer: The token.
        interaction_type: `user` or `batch`.
        last_access: When the owner was last active, in RFC 3339.
    """
    return [
        (b"authorization", b"Bearer " + bearer.reveal().encode("ascii")),
        (b"x-akoya-interaction-type", interaction_type.encode("ascii")),
        (b"x-akoya-last-access", last_access.encode("ascii")),
        (b"x-akoya-intent-type", api.intent.value.encode("ascii")),
        # The body is passed on unchanged, and the client may not accept a compressed one.
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"akoya-gateway"),
    ]


def response_headers(headers: Iterable[tuple[bytes, bytes]], status: int = 200) -> Headers:
    """Return the response headers to send to the client.

    A `Content-Length` that does not give the length of the body is omitted: next to `Transfer-Encoding`, which
    overrides it (RFC 9112 section 6.3), and with 204 and 304. With it, ASGI servers would close the client's
    connection.

    A problem document of the bank becomes plain JSON, so that all problem documents are the gateway's own. Otherwise a
    bank could imitate one that names an address to reconnect at.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    has_other_length = status in NO_CONTENT or any(name == b"transfer-encoding" for name, _ in lowered)
    allowed = _TO_CLIENT - {b"content-length"} if has_other_length else _TO_CLIENT
    return [_as_plain_json(name, value) for name, value in lowered if name in allowed] + _CONFINED


def _as_plain_json(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name == b"content-type" and value.partition(b";")[0].strip().lower() == PROBLEM_JSON:
        return name, b"application/json"
    return name, value


def interaction_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return Akoya's interaction ID, or an empty string if there is none that is safe to log."""
    found = next((value for name, value in headers if name.lower() == INTERACTION_ID), b"")
    return found.decode("ascii") if _ID.fullmatch(found) else ""
