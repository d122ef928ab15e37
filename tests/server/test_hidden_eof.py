"""Tests that a client is noticed to have left although its EOF cannot arrive, because the receive buffer is full."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from akoya_gateway.server import uvicorn_server
from akoya_gateway.server.uvicorn_server import DrainingServer, server_config
from tests.support.waiting import until_async

STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond to `/stream` with an event stream that never sends an event."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b":hi\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.fixture
async def server() -> AsyncIterator[tuple[DrainingServer, int]]:
    server = DrainingServer(server_config(app, head_limit=2000), grace=1)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve([listener]))
    await until_async(lambda: server.started, "the server has started")
    yield server, listener.getsockname()[1]
    server.stop_now()
    server.stop()
    await serving


async def open_stream(server: DrainingServer, port: int, behind: bytes) -> socket.socket:
    """Return a client with an open event stream that has sent further bytes, as many as the buffers take."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, STREAM)
    received = b""
    while b":hi" not in received:
        received += await loop.sock_recv(client, 4096)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5 if behind == UPLOAD else 30):
            await loop.sock_sendall(client, behind if behind != UPLOAD else UPLOAD + bytes(20_000_000))
    (connection,) = server.server_state.connections
    await until_async(lambda: getattr(connection, "reading_is_paused", False), "the next request waits")
    return client


async def test_client_that_has_filled_the_receive_buffer_behind_a_stream_is_disconnected(
    server: tuple[DrainingServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, port = server
    with await open_stream(running, port, UPLOAD):
        pass
    await asyncio.sleep(0)
    running.close_abandoned()
    assert running.server_state.connections
    monkeypatch.setattr(uvicorn_server, "HIDDEN_EOF_SECONDS", 0.0)
    running.close_abandoned()
    await until_async(
        lambda: not (running.server_state.connections or running.server_state.tasks), "the stream has ended"
    )


async def test_stream_goes_on_with_a_small_request_behind_it(
    server: tuple[DrainingServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, port = server
    monkeypatch.setattr(uvicorn_server, "HIDDEN_EOF_SECONDS", 0.0)
    with await open_stream(running, port, STREAM + bytes(1000)):
        for _ in range(3):
            running.close_abandoned()
            await asyncio.sleep(0.01)
        assert running.server_state.connections
