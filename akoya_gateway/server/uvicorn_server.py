"""uvicorn's configuration, and a server that drains its connections when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import sys
import termios
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Literal, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.refusal_log import RefusalLog
from akoya_gateway.server.websocket_protocol import GuardedWebSocketProtocol

WebSockets = type[GuardedWebSocketProtocol] | Literal["none"]

KEEP_ALIVE_SECONDS = 75
"""Seconds an idle connection is kept. Longer than the timeout of common proxies in front, so that they close first."""
LINGER_SECONDS = 0.2
"""Seconds to wait, before idle connections are closed, for requests that are already on their way."""
CLOSE_FRAME_SECONDS = 2.0
"""Seconds that closed WebSockets and cancelled requests have to finish."""
HIDDEN_EOF_SECONDS = 15.0
"""Seconds after which a client that has filled the receive buffer behind a running response counts as disconnected."""
HIDDEN_EOF_BYTES = 32_768
"""Bytes in the receive buffer from which on the client's EOF may not fit in. The initial window of Linux is 64 KB."""
_TICKS = 10
"""Calls of `on_tick` per second (uvicorn)."""
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""Poll event for a client that has closed its sending side. Systems without it (macOS) report POLLHUP and POLLERR."""


def server_config(
    app: ASGIApp,
    *,
    head_limit: int,
    field_limit: int = 256,
    protocol: Callable[..., HttpToolsProtocol] = LimitedHttpProtocol,
    max_message: int = 16_777_216,
    websockets: WebSockets = GuardedWebSocketProtocol,
    refusal_log: RefusalLog | None = None,
) -> uvicorn.Config:
    """Return a uvicorn configuration without uvicorn's own headers, logging and trust in forwarded headers.

    Args:
        app: the ASGI app.
        head_limit: maximum bytes of request line and headers.
        field_limit: maximum header fields of one request.
        protocol: HTTP protocol class.
        max_message: maximum bytes of a WebSocket message.
        websockets: WebSocket protocol class, or `"none"` to serve no WebSockets.
        refusal_log: receives refused requests.
    """
    refusals = refusal_log or RefusalLog()
    limited = partial(protocol, head_limit=head_limit, field_limit=field_limit, refusal_log=refusals)
    http = cast("type[asyncio.Protocol]", limited)
    return uvicorn.Config(
        cast("Any", app),
        http=http,
        ws=websockets,
        ws_max_size=max_message,
        # Compressing messages that the upstream sent uncompressed costs more than the bandwidth. It could also leak
        # secrets by the compressed size (CRIME, BREACH).
        ws_per_message_deflate=False,
        loop="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class DrainingServer(uvicorn.Server):
    """uvicorn server with an orderly shutdown.

    `stop()` closes the listeners and gives requests in progress `grace` seconds to finish. The streams and WebSockets
    that are then still open are closed. The worker handles signals, so the server installs no handlers.
    """

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        super().__init__(config)
        self.grace = grace
        self._stop_now = asyncio.Event()
        self._paused_since: dict[LimitedHttpProtocol, tuple[object, float]] = {}
        """Connections on which reading is paused: the request in progress, and the time since when."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no signal handlers: the worker has its own."""
        yield

    @property
    def requests_in_flight(self) -> int:
        """The number of connections with a request whose response is not complete."""
        connections = self.server_state.connections
        return sum(each.under_way for each in connections if isinstance(each, LimitedHttpProtocol))

    def stop(self) -> None:
        """Begin to drain. Returns immediately."""
        self.should_exit = True

    def stop_now(self) -> None:
        """Stop without waiting for requests in progress."""
        self._stop_now.set()
        self.should_exit = True

    async def wait_stop_now(self) -> None:
        """Wait until `stop_now` is called."""
        await self._stop_now.wait()

    def close_after_responses(self) -> None:
        """Add `Connection: close` to every response from now on."""
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self.close_abandoned()
        return await super().on_tick(counter)

    def close_abandoned(self) -> None:
        """Abort connections whose client has disconnected while reading is paused.

        Reading is paused while a request is pipelined behind another one or while the app does not read the body. The
        client's EOF cannot be read then, so the kernel is polled for it. A client that has only closed its sending
        side counts as disconnected, as it does when the EOF is read.

        Nor does the EOF reach the kernel while the receive buffer is full. So a client that has filled it with further
        requests is disconnected after `HIDDEN_EOF_SECONDS` without a new response. No client needs that much
        pipelining, and an event stream whose client has disconnected would otherwise stay open forever.
        """
        paused = {
            each.transport.get_extra_info("socket").fileno(): each
            for each in self.server_state.connections
            if isinstance(each, LimitedHttpProtocol) and each.reading_is_paused
        }
        now = asyncio.get_running_loop().time()
        before = self._paused_since
        self._paused_since = {}
        if not paused:
            return
        poll = select.poll()
        for descriptor in paused:
            poll.register(descriptor, _PEER_CLOSED)
        for descriptor, _ in poll.poll(0):
            paused.pop(descriptor).transport.abort()
        for descriptor, each in paused.items():
            if not each.pipeline:
                continue
            running, since = before.get(each, (None, now))
            if running is not each.request_in_progress:
                since = now
            self._paused_since[each] = each.request_in_progress, since
            if now - since >= HIDDEN_EOF_SECONDS and _unread_bytes(descriptor) >= HIDDEN_EOF_BYTES:
                each.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, drain the connections, then close what is left."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self.close_after_responses()
        await self._wait_until_closed(LINGER_SECONDS)
        for http in self._http_connections():
            http.shutdown()
        await self._wait_until_closed(self.grace)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_until_closed(CLOSE_FRAME_SECONDS, hurry=False)
        # A stream notices that its connection is closed, as if the client had left. uvicorn would log a traceback for
        # each one that is cancelled.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._finish_tasks()
        for task in list(self.server_state.tasks):
            task.cancel(msg="the server is stopping")
        await self._finish_tasks()

    def _http_connections(self) -> list[HttpToolsProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, HttpToolsProtocol)]

    async def _finish_tasks(self) -> None:
        """Wait for the tasks of requests, at most `CLOSE_FRAME_SECONDS`."""
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=CLOSE_FRAME_SECONDS)

    async def _wait_until_closed(self, seconds: float, *, hurry: bool = True) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while self.server_state.connections or self.server_state.tasks:
            rest = end - asyncio.get_running_loop().time()
            if rest <= 0 or (hurry and self._stop_now.is_set()):
                return
            await asyncio.sleep(min(0.05, rest))


def _unread_bytes(descriptor: int) -> int:
    """Return the number of bytes in the receive buffer of a socket."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
