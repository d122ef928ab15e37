"""Whom a connection to an upstream talks to: the one who gets the response, and the one it belongs to."""

from __future__ import annotations

from typing import Protocol, TypeVar

from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.http.response_head import Headers, ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

_Connection_contra = TypeVar("_Connection_contra", contravariant=True)


class ResponseHandler(Protocol):
    """Who gets the response. Calls come in this order: head, body*, trailers?, end; or failure at any point, once.

    A sink must not raise; from `on_end` on the connection may already serve somebody else, whom that would cut.
    """

    def on_head(self, status: int, head: ResponseHead) -> None: ...

    def on_body(self, chunk: bytes) -> None: ...

    def on_trailers(self, headers: Headers) -> None: ...

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        """In place of `on_head`, `on_body` and `on_end`: a whole response with a plain head."""

    def on_end(self) -> None:
        """The response is complete; the connection is already back with its owner or closed."""

    def on_failure(self, error: GatewayError) -> None:
        """No (more) response; the connection is closed."""

    def on_writable(self) -> None:
        """More of the request body may be written (see `Connection.congested`)."""

    def on_tick(self) -> None:
        """The exchange is still open: called about once a tick of the pool. For what is not worth a timer."""


class ConnectionOwner(Protocol[_Connection_contra]):
    """Whom a connection belongs to. `now` is a coarse loop time, renewed every tick."""

    now: float

    def on_idle(self, connection: _Connection_contra) -> None: ...

    def on_gone(self, connection: _Connection_contra) -> None: ...

    def on_stray(self, connection: _Connection_contra) -> None:
        """The upstream sent bytes that belong to no response; see `Connection.bodiless`."""

    def on_read_timeout_disabled(self, connection: _Connection_contra) -> None:
        """It will be in use for long."""

    def on_connection_response(self, connection: _Connection_contra) -> None:
        """A response is complete; for connections that do not become idle after it."""

    def on_connection_failure(self, connection: _Connection_contra) -> None:
        """A request came to nothing: no answer in time, or none that makes sense. Not where the connection may just
        have been closing, nor where it was the client's doing."""
