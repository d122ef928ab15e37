"""A data API that responds as a test says, and records what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.support.processes import AppServer


@dataclass
class Received:
    """One request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    connection: int = 0


@dataclass
class ProductsServer:
    """The server. `responses` are used in order, the last one again and again: status, headers and body."""

    responses: list[tuple[int, dict[str, str], bytes]] = field(default_factory=lambda: [(200, {}, b"{}")])
    received: list[Received] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client has disconnected in the middle of its body, or while it waited for `/slow`."""
    reads_body: bool = True

    def __post_init__(self) -> None:
        self._server = AppServer(self)

    @property
    def url(self) -> str:
        return self._server.url

    def __enter__(self) -> ProductsServer:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = Received(
            scope["method"],
            scope["raw_path"].decode(),
            scope["query_string"].decode(),
            headers,
            connection=scope["client"][1],
        )
        self.received.append(request)
        while self.reads_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            request.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, more, body = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        listed = [(b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in more.items())]
        await send({"type": "http.response.start", "status": status, "headers": listed})
        step = 65_536
        for start in range(0, len(body), step):
            await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def error(code: int) -> bytes:
    return json.dumps({"code": code, "message": "x", "debugMessage": "y"}).encode()
