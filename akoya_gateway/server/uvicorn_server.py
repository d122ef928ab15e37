"""uvicorn as we run it, and how it comes to an end."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from functools import partial
from typing import Any, Literal, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.refusal_log import RefusalLog
from akoya_gateway.server.websocket_protocol import GuardedWebSocketProtocol

App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

WebSockets = type[GuardedWebSocketProtocol] | Literal["none"]

KEEP_ALIVE_SECONDS = 75
"""Seconds an idle connection is kept: longer than proxies in front of us keep theirs, so that they close first."""
LINGER_SECONDS = 0.2
"""Seconds for a request that was already on its way when an idle connection is about to be closed."""
CLOSE_FRAME_SECONDS = 2.0
"""Seconds for what was cut off to end in order."""
_TICKS = 10
"""uvicorn's ticks in a second."""
_GONE = getattr(select, "POLLRDHUP", 0)
"""The client sends no more. Systems without it (macOS) still report POLLHUP and POLLERR."""


def server_config(
    app: App,
    *,
    head_limit: int,
    field_limit: int = 256,
    protocol: Callable[..., HttpToolsProtocol] = LimitedHttpProtocol,
    max_message: int = 16_777_216,
    websockets: WebSockets = GuardedWebSocketProtocol,
) -> uvicorn.Config:
    """No header of uvicorn's own, no trust in forwarded headers, no log but ours. `head_limit` and `max_message` (of
    WebSockets) in bytes, `field_limit` in header fields. `websockets`: what uvicorn makes of a WebSocket, if it may."""
    limited = partial(protocol, head_limit=head_limit, field_limit=field_limit, refusal_log=RefusalLog())
    http = cast("type[asyncio.Protocol]", limited)
    return uvicorn.Config(
        cast("Any", app),
        http=http,
        ws=websockets,
        ws_max_size=max_message,
        # Compressing what an upstream sent plain costs more than the wire does, and is an oracle where secrets are.
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
    """Ends in order: nothing new, then requests under way finish, then streams and WebSockets, for `grace` seconds.

    `stop()` begins it. Signals are the worker's business, not the server's.
    """

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        super().__init__(config)
        self.grace = grace
        self._stop_now = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop(self) -> None:
        self.should_exit = True

    def stop_now(self) -> None:
        """Do not wait for anybody any more."""
        self._stop_now.set()
        self.should_exit = True

    async def wait_stop_now(self) -> None:
        await self._stop_now.wait()

    def close_websockets(self) -> None:
        """From now on every answer closes its connection."""
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self.close_abandoned()
        return await super().on_tick(counter)

    def close_abandoned(self) -> None:
        """Close connections whose client has left unnoticed.

        While reading is paused (a request is pipelined behind a running one, or a body is not wanted yet), the end of
        the client's stream cannot be read. The kernel knows it. A client that sends no more counts as gone, as it does
        where its end is read.
        """
        paused = {
            each.transport.get_extra_info("socket").fileno(): each
            for each in self.server_state.connections
            if isinstance(each, LimitedHttpProtocol) and each.reading_is_paused
        }
        if not paused:
            return
        poll = select.poll()
        for descriptor in paused:
            poll.register(descriptor, _GONE)
        for descriptor, _ in poll.poll(0):
            paused[descriptor].transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self.close_websockets()
        await self._until_gone(LINGER_SECONDS)
        for http in self._http_connections():
            http.shutdown()
        await self._until_gone(self.grace)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until_gone(CLOSE_FRAME_SECONDS, hurry=False)
        self._cut()
        tasks = list(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_FRAME_SECONDS)

    def _http_connections(self) -> list[HttpToolsProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, HttpToolsProtocol)]

    def _cut(self) -> None:
        for task in list(self.server_state.tasks):
            task.cancel(msg="the server is stopping")
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _until_gone(self, seconds: float, *, hurry: bool = True) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while self.server_state.connections or self.server_state.tasks:
            rest = end - asyncio.get_running_loop().time()
            if rest <= 0 or (hurry and self._stop_now.is_set()):
                return
            await asyncio.sleep(min(0.05, rest))
