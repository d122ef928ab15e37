"""Tests that a client that does not read its response is disconnected, so that it does not hold resources indefinitely."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.uvicorn_server import DrainingServer, server_config
from tests.support.waiting import until_async


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond to `/N` with N bytes, in pieces."""
    left = int(scope["path"][1:])
    headers = [(b"content-length", b"%d" % left)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while left:
        size = min(left, 50_000)
        left -= size
        await send({"type": "http.response.body", "body": bytes(size), "more_body": left > 0})


@pytest.fixture
async def server() -> AsyncIterator[tuple[DrainingServer, int]]:
    protocol = partial(LimitedHttpProtocol, send_timeout=2.0)
    config = server_config(app, head_limit=2000, protocol=protocol)
    config.timeout_keep_alive = 1
    server = DrainingServer(config, grace=1)
    listener = socket.create_server(("127.0.0.1", 0))
    # Accepted connections inherit the listener's buffer size. A small one makes the kernel take little.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serving = asyncio.ensure_future(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield server, listener.getsockname()[1]
    server.stop()
    await serving


def open_request(port: int, size: int, more: bytes = b"") -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /%d HTTP/1.1\r\nhost: a\r\n%b\r\n" % (size, more))
    return client


@pytest.mark.parametrize("size", [40_000, 1_000_000], ids=["what is kept whole", "what waits"])
@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"], ids=["kept alive", "closed"])
async def test_client_that_reads_nothing_is_cut(server: tuple[DrainingServer, int], size: int, more: bytes) -> None:
    running, port = server
    with open_request(port, size, more):
        await until_async(lambda: running.server_state.connections, "the server has accepted the connection")
        await until_async(lambda: not (running.server_state.connections or running.server_state.tasks), "it is closed")


async def test_client_that_reads_slowly_gets_all(server: tuple[DrainingServer, int]) -> None:
    """Reading the whole response takes longer than the send timeout."""
    _, port = server
    with open_request(port, 400_000, b"connection: close\r\n") as client:
        client.setblocking(False)
        got = 0
        while data := await asyncio.get_running_loop().sock_recv(client, 4000):
            got += len(data)
            await asyncio.sleep(0.015)
        assert got > 400_000
