"""The ASGI app behind the proxy in tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

from tests.support.asgi import read_body


async def reply(send: Any, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    fields = [(b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


class Backend:
    """A test app with counters of its requests and clients.

    `hung` counts requests for `/hang` and `left` the clients that disconnected. `received` is the number of bytes of the
    current or last upload.
    """

    def __init__(self) -> None:
        self.hung = 0
        self.left = 0
        self.received = 0
        self.sent = 0
        self.clients: set[tuple[str, int]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await self.socket(scope, receive, send)
        else:
            self.clients.add(scope["client"])
            name = scope["path"].strip("/").partition("/")[0] or "hello"
            await getattr(self, name)(scope, receive, send)

    async def hello(self, scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"hello", headers=[(b"x-app", b"1")])

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        seen = {
            "method": scope["method"],
            "target": (scope["raw_path"] + b"?" + scope["query_string"]).decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": body.decode("latin-1"),
        }
        await reply(send, json.dumps(seen).encode(), headers=[(b"content-type", b"application/json")])

    async def digest(self, scope: Any, receive: Any, send: Any) -> None:
        digest = hashlib.sha256()
        self.received = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            digest.update(message["body"])
            self.received += len(message["body"])
            more = message["more_body"]
        await reply(send, digest.hexdigest().encode())

    async def slow_read(self, scope: Any, receive: Any, send: Any) -> None:
        """Receive the first piece of the body, then nothing more."""
        self.received = len((await receive())["body"])
        await asyncio.sleep(30)

    async def refuse(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond without reading the body."""
        await reply(send, b"too much", status=413)

    async def big(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with as many bytes as the query says, framed as the path says."""
        size = int(scope["query_string"])
        block = bytes(range(256)) * 256
        headers = [(b"content-length", b"%d" % size)] if scope["path"].endswith("/length") else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.sent = 0
        while self.sent < size:
            piece = block[: size - self.sent]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent += len(piece)
        await send({"type": "http.response.body", "body": b""})

    async def events(self, scope: Any, receive: Any, send: Any) -> None:
        """Send server-sent events: one at once, then one every 0.2 s until the client disconnects."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        leaving = asyncio.create_task(receive_until_gone(receive))
        number = 0
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            number += 1
            await asyncio.wait([leaving], timeout=float(scope["query_string"] or b"0.2"))
        self.left += 1

    async def hang(self, scope: Any, receive: Any, send: Any) -> None:
        """Never respond. Count the client's disconnect."""
        self.hung += 1
        await receive_until_gone(receive)
        self.left += 1

    async def wait(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(float(scope["query_string"]))
        await reply(send, b"waited")

    async def not_modified(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", b'"a"')]})
        await send({"type": "http.response.body", "body": b""})

    async def no_content(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def socket(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError


async def receive_until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
