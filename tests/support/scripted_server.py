"""A small HTTP/1.1 server on a real socket that sends exactly what a test specifies, faults included."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass
class Server:
    """A running server. `responses[path]` writes the response; `received` has every request that was read completely."""

    port: int = 0
    responses: dict[str, Responder] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client disconnected before its response was complete."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def to(self, path: str) -> list[Received]:
        return [request for request in self.received if request.path == path]


Responder = Callable[[Server, Received, asyncio.StreamWriter], Awaitable[bool | None]]
"""Write the response; return True to keep the connection open for the next request."""


@asynccontextmanager
async def serve(**responses: Responder) -> AsyncIterator[Server]:
    """Run a server on a free loopback port. The keyword `token=` handles `/token`, and so on."""
    server = Server(responses={f"/{name}": response for name, response in responses.items()})
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            while await _one(server, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            server.gone.set()
        except asyncio.CancelledError:
            # The test is over. Catch this, because asyncio's streams would log it, and abort rather than flush:
            # the client may never read the rest.
            writer.transport.abort()
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    request = Received(method, path, headers, body)
    server.received.append(request)
    return bool(await server.responses[path](server, request, writer))


def reply(status: int, body: Any = b"", headers: str = "", content_type: str = "application/json") -> Responder:
    """Send a complete, valid response."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def respond(_: Server, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n".encode()
            + raw
        )
        await writer.drain()

    return respond


def raw(*pieces: bytes, pause: float = 0.0, hold: bool = False) -> Responder:
    """Send these bytes with pauses between them, then close the connection, or keep it open with `hold`."""

    async def respond(_: Server, __: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if hold:
            await asyncio.sleep(3600)

    return respond


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Responder:
    """Send a body that never ends."""

    async def respond(_: Server, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return respond


def in_turn(*responses: Responder) -> Responder:
    """Use the first handler for the first request, and so on; repeat the last one."""
    left = list(responses)

    async def respond(server: Server, request: Received, writer: asyncio.StreamWriter) -> bool | None:
        chosen = left.pop(0) if len(left) > 1 else left[0]
        return await chosen(server, request, writer)

    return respond
