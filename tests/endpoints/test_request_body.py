"""Tests that a body that is read whole must arrive within its timeout."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from akoya_gateway.endpoints.request_body import read_body
from akoya_gateway.errors import UserError
from akoya_gateway.server.uvicorn_server import DrainingServer, server_config


async def app(scope: Any, receive: Any, send: Any) -> None:
    try:
        status, text = 200, await read_body(receive, 100, 0.5 if scope["path"] == "/short" else 30.0)
    except UserError as error:
        status, text = error.status, error.code.encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = DrainingServer(server_config(app, head_limit=2000), grace=1)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    server.stop()
    await serving


@pytest.mark.parametrize(
    ("length", "pieces", "expected"),
    [
        (9, (b"some", b"thing"), b"something"),
        (9, (b"some",), b"body-timeout"),
        (9, (), b"body-timeout"),
        (40, (b"x",) * 30, b"body-timeout"),
        (101, (b"x" * 101,), b"body-too-large"),
    ],
)
async def test_body(port: int, length: int, pieces: tuple[bytes, ...], expected: bytes) -> None:
    """A body that arrives byte by byte gets no more time than any other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = b"/short" if expected == b"body-timeout" else b"/"
    writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, length))
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.03)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(expected)) == expected
    assert head.startswith(b"HTTP/1.1 200") is (expected == b"something")
    writer.close()
