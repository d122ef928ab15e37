"""Callback interfaces of an upstream connection: the handler of its response, and the owner of the connection."""

from __future__ import annotations

from typing import Protocol, TypeVar

from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.http.response_head import Headers, ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

_Connection_contra = TypeVar("_Connection_contra", contravariant=True)


class ResponseHandler:
    """Receives a response.

    The order of calls is `on_head`, `on_body` (any number of times), `on_trailers` (optional), `on_end`. At any point
    `on_failure` may be called instead, once. Methods must not raise: when `on_end` is called, the connection may
    already serve another request, which an exception would break.
    """

    def on_head(self, status: int, head: ResponseHead) -> None:
        """The response head has arrived. 1xx responses are not reported."""

    def on_body(self, chunk: bytes) -> None:
        """Body bytes have arrived, without their framing."""

    def on_trailers(self, headers: Headers) -> None:
        """The announced trailers, without those that must not be passed on."""

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        """A complete response with a simple head (see `response_head_cache`).

        Called instead of `on_head`, `on_body` and `on_end`.
        """

    def on_end(self) -> None:
        """The response is complete. The connection has already been returned to its owner or closed."""

    def on_failure(self, error: GatewayError) -> None:
        """The response failed or was truncated. The connection is closed."""

    def on_writable(self) -> None:
        """More of the request body may be written (see `Connection.congested`)."""

    def on_tick(self) -> None:
        """Called about once per tick of the pool while the exchange is open. Use it instead of a timer."""


class ConnectionOwner(Protocol[_Connection_contra]):
    """The owner of a connection, usually a pool."""

    now: float
    """Coarse event loop time, updated every tick."""
    write_timeout: float
    """Seconds for which the transport of a connection may be congested."""

    def on_idle(self, connection: _Connection_contra) -> None:
        """The response is complete and the connection can be reused."""
        ...

    def on_gone(self, connection: _Connection_contra) -> None:
        """The connection is closed or closing. May be called more than once."""
        ...

    def on_stray(self, connection: _Connection_contra) -> None:
        """The upstream sent bytes that belong to no response (see `Connection.bodiless`)."""

    def on_read_timeout_disabled(self, connection: _Connection_contra) -> None:
        """The connection is expected to be in use for a long time."""

    def on_connection_response(self, connection: _Connection_contra) -> None:
        """A response is complete, but the connection is closed instead of becoming idle."""

    def on_connection_failure(self, connection: _Connection_contra) -> None:
        """A request failed, because there was no response in time or no valid one.

        Not called if the upstream may just have closed an idle connection, or if the client caused the failure.
        """
