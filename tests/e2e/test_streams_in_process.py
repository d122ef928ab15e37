"""Streams and WebSockets of apps in the gateway's own process end with their grant, and no app logs a traceback for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.support.environment import GatewayEnv
from tests.support.raw_http import Client
from tests.support.waiting import until
from tests.support.websocket_frames import CLOSE, read_frame, request

EVENT = b"data: x\n\n"
finished = threading.Event()
"""Set at the end of the test, so that a background task ends."""
shaken = threading.Event()
"""Set when a handshake may be accepted."""


async def events() -> AsyncIterator[bytes]:
    while True:
        yield EVENT
        await asyncio.sleep(0.05)


async def framework(request: Request) -> Response:
    return StreamingResponse(events(), media_type="text/event-stream")


async def background(request: Request) -> Response:
    """Complete the event stream, and continue with a background task that outlives the grant."""
    task = BackgroundTask(asyncio.to_thread, finished.wait, 60)
    return StreamingResponse(iter([EVENT]), media_type="text/event-stream", background=task)


def raw(kind: bytes, *headers: tuple[bytes, bytes]) -> Any:
    """Return an app that sends an event stream. It ends as `kind` says when `send` raises."""

    async def stream(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        async for event in events():
            await send({"type": "http.response.body", "body": event, "more_body": True})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if kind == b"group":
            async with asyncio.TaskGroup() as group:
                group.create_task(stream(send))
        elif kind == b"silent":
            with contextlib.suppress(OSError):
                await stream(send)
        else:
            await stream(send)

    return app


async def ticks(socket: WebSocket) -> None:
    """Send messages without ever receiving one."""
    await socket.accept()
    while True:
        await socket.send_text("tick")
        await asyncio.sleep(0.05)


async def slow_handshake(socket: WebSocket) -> None:
    await asyncio.to_thread(shaken.wait, 60)
    await socket.accept()


PLAIN, CAPITALS = (b"content-type", b"text/event-stream"), (b"Content-Type", b"text/event-stream; charset=utf-8")
LENGTH = (b"content-length", b"1000000")
RAW = {
    "plain": raw(b"", PLAIN),
    "capitals": raw(b"", CAPITALS),
    "group": raw(b"group", PLAIN),
    "silent": raw(b"silent", PLAIN),
    "length": raw(b"", PLAIN, LENGTH),
    "silent_length": raw(b"silent", PLAIN, LENGTH),
}
STREAMS = ["framework", "background", *RAW]
HANDSHAKES = ["slow_handshake"]
SOCKETS = ["ticks", *HANDSHAKES]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Let an app without a framework respond, or the one with it."""
    respond = RAW.get(scope.get("path", "").rpartition("/")[2], with_framework)
    await respond(scope, receive, send)


with_framework = Starlette(
    routes=[
        Route("/accounts/framework", framework),
        Route("/accounts/background", background),
        WebSocketRoute("/accounts/ticks", ticks),
        WebSocketRoute("/accounts/slow_handshake", slow_handshake),
    ]
)


@pytest.fixture
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint="middleware", app=app) as env:
        yield env


class Lines(logging.Handler):
    """Collects what the server logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.exc_info}")


def test_streams_and_websockets_of_apps_end_with_their_grant_without_errors(env: GatewayEnv) -> None:
    server, lines = logging.getLogger("uvicorn.error"), Lines()
    server.addHandler(lines)
    try:
        with env.browser() as browser, contextlib.ExitStack() as stack:
            browser.connect()
            cookies = browser.cookie_header()
            clients = {name: stack.enter_context(Client(env.port)) for name in STREAMS + SOCKETS}
            for name in STREAMS:
                clients[name].send(b"GET /accounts/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (name.encode(), cookies))
                assert b" 200 " in clients[name].until(EVENT)
            for name in SOCKETS:
                clients[name].send(request(b"/accounts/" + name.encode())[:-2] + cookies + b"\r\n")
            assert b" 101 " in clients["ticks"].head()
            page = browser.connections()
            assert browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": page["csrf"]}).status_code == 303
            for name in set(STREAMS) - {"background", "length", "silent_length"}:
                assert clients[name].rest().endswith(b"0\r\n\r\n"), f"{name}: an event stream ends between two events"
            for name in ("length", "silent_length"):
                assert len(clients[name].rest()) < 1_000_000, f"{name}: the response is truncated"
            while (frame := read_frame(clients["ticks"]))[0] != CLOSE:
                pass
            assert frame[1][:2] == (4401).to_bytes(2, "big")
            assert clients["slow_handshake"].rest().startswith(b"HTTP/1.1 403 ")
            shaken.set()
            until(lambda: not len(env.gateway.gateway.connections), "all connections are closed")  # type: ignore[union-attr]
            finished.set()
            assert clients["background"].until(b"0\r\n\r\n")
    finally:
        shaken.set()
        finished.set()
        server.removeHandler(lines)
    assert lines.lines == []
