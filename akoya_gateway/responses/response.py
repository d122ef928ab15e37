"""A complete response of the gateway, independent of how it is sent: over ASGI, by forward-auth or below ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from akoya_gateway.errors import GatewayError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROBLEM_JSON = b"application/problem+json"

_COMMON_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers (with lower-case names) and body.

    Unless `headers` override it, the response is sent with headers that forbid caching, referrers and MIME sniffing.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def with_headers(self, *headers: tuple[bytes, bytes]) -> Response:
        """Return a copy with these headers added."""
        return replace(self, headers=self.headers + headers)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers to send, including the common ones and Content-Length."""
        named = {name for name, _ in self.headers}
        standing = [pair for pair in _COMMON_HEADERS if pair[0] not in named]
        return [*self.headers, *standing, (b"content-length", b"%d" % len(self.body))]

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send the response over ASGI, without its body if `head` is True (for HEAD requests)."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def redirect_response(location: str, status: int = 302) -> Response:
    """Return a redirect (RFC 9110 section 15.4).

    `location` is not checked: it must be validated already, or come from the operator.
    """
    return Response(status, ((b"location", location.encode("ascii")),))


def json_response(value: object, status: int = 200) -> Response:
    """Return `value` as a JSON response."""
    return Response(
        status, ((b"content-type", b"application/json"),), json.dumps(value, separators=(",", ":")).encode()
    )


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
    headers = ((b"content-type", PROBLEM_JSON), *error_headers(error))
    return Response(error.status, headers, json.dumps(body, separators=(",", ":")).encode())


def error_headers(error: GatewayError) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that the error requires in every body format."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.status == 401:
        # RFC 9110 section 15.5.2 requires a challenge with every 401.
        headers.append((b"www-authenticate", b'Akoya-Connect realm="akoya-gateway"'))
    return tuple(headers)
