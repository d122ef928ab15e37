"""The gateway's own responses: Starlette responses with exact header bytes, and functions that create them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import starlette.responses
from starlette.types import Receive, Scope, Send

from akoya_gateway.errors import GatewayError

PROBLEM_JSON = b"application/problem+json"

_COMMON_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Response(starlette.responses.Response):
    """A complete response that is sent with headers against caching, referrers and MIME sniffing.

    Do not modify a response: it may be sent more than once.
    """

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"") -> None:
        """Create the response. `headers` have lower-case names, and override the common ones."""
        self.status_code = status
        self.body = body
        self.background = None
        self._own_headers = tuple(headers)
        names = {name for name, _ in self._own_headers}
        common = [pair for pair in _COMMON_HEADERS if pair[0] not in names]
        self.raw_headers = [*self._own_headers, *common, (b"content-length", b"%d" % len(body))]

    def with_headers(self, *headers: tuple[bytes, bytes]) -> Response:
        """Return a copy with these headers added."""
        return Response(self.status_code, (*self._own_headers, *headers), bytes(self.body))

    def with_status(self, status: int) -> Response:
        """Return a copy with another status."""
        return Response(status, self._own_headers, bytes(self.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response as an ASGI app."""
        await self.send(send, head=scope["method"] == "HEAD")

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send the response, without its body if `head` is True (for HEAD requests)."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def redirect_response(location: str, status: int = 302) -> Response:
    """Return a redirect (RFC 9110 section 15.4). Starlette's `RedirectResponse` would quote `location` again.

    `location` is not checked: it must be validated already, or come from the operator.
    """
    return Response(status, ((b"location", location.encode("ascii")),))


def json_response(value: object, status: int = 200) -> Response:
    """Return `value` as a JSON response."""
    return Response(status, ((b"content-type", b"application/json"),), _json(value))


def problem_response(error: GatewayError, request_id: str, extra: Mapping[str, object] | None = None) -> Response:
    """Return the error as problem details (RFC 9457).

    `extra` contains additional members, such as `connect_url` and `connector`.
    """
    body: dict[str, object] = {
        "type": f"urn:akoya-gateway:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "request_id": request_id,
    }
    if error.public_detail:
        body["detail"] = error.public_detail
    body.update(extra or {})
    return Response(error.status, ((b"content-type", PROBLEM_JSON), *error_headers(error)), _json(body))


def error_headers(error: GatewayError) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that the error requires in every body format."""
    headers: list[tuple[bytes, bytes]] = [*error.headers]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.status == 401 and not any(name == b"www-authenticate" for name, _ in headers):
        # RFC 9110 section 15.5.2 requires a challenge with every 401.
        headers.append((b"www-authenticate", b'Akoya-Connect realm="akoya-gateway"'))
    return tuple(headers)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
