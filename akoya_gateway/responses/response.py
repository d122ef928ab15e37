"""An answer of our own, ready to be sent: by the ASGI faces, by forward-auth or below ASGI."""

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
    """Status, headers (lower-case names) and body. Every answer of ours is uncacheable and leaks no referrer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def with_headers(self, *headers: tuple[bytes, bytes]) -> Response:
        return replace(self, headers=self.headers + headers)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers to send, framing and the standing ones included."""
        named = {name for name, _ in self.headers}
        standing = [pair for pair in _COMMON_HEADERS if pair[0] not in named]
        return [*self.headers, *standing, (b"content-length", b"%d" % len(self.body))]

    async def send(self, send: Send, *, head: bool = False) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def redirect_response(location: str, status: int = 302) -> Response:
    """`location` has been judged or is the operator's own (RFC 9110 section 15.4)."""
    return Response(status, ((b"location", location.encode("ascii")),))


def json_response(value: object, status: int = 200) -> Response:
    return Response(
        status, ((b"content-type", b"application/json"),), json.dumps(value, separators=(",", ":")).encode()
    )


def problem_response(error: GatewayError, request_id: str, extra: Mapping[str, object] | None = None) -> Response:
    """RFC 9457 problem details. `extra` members are ours (`connect_url`, `connector`)."""
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
    """What the status demands besides the body, whatever form that has."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.status == 401:
        # RFC 9110 section 15.5.2 wants a challenge with every 401.
        headers.append((b"www-authenticate", b'Akoya-Connect realm="akoya-gateway"'))
    return tuple(headers)
