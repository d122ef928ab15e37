"""Every WebSocket handshake is reported to the access log once, also one that the gateway or the app refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway import Gateway
from akoya_gateway.endpoints.observer import NullAuthorizationObserver
from akoya_gateway.errors import UpstreamError
from akoya_gateway.gateway.runtime import Observers
from akoya_gateway.grants.observer import NullGrantObserver
from tests.support.config_documents import error_lines, validated
from tests.support.gateway_in_process import InProcessEnv, Person
from tests.support.request_recorder import RequestRecorder

ACCESS = [{"path": "/public/*", "require": "nothing"}, {"path": "/bank", "require": "any"}]
RESPONSES = "websocket.http.response"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Accept, refuse or close a WebSocket, or fail as the reverse proxy does, by the path."""
    await receive()
    match scope["path"]:
        case "/public/refused":
            await send({"type": f"{RESPONSES}.start", "status": 409, "headers": [(b"akoya-owner", b"secret")]})
            await send({"type": f"{RESPONSES}.body", "body": b"no"})
        case "/public/closed":
            await send({"type": "websocket.close", "code": 1008})
        case "/public/unreachable":
            raise UpstreamError("the upstream refused the connection")
        case _:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})


@pytest.mark.parametrize("with_responses", [True, False])
async def test_each_handshake_is_reported_once_with_status_rule_and_outcome(
    tmp_path: Path, with_responses: bool
) -> None:
    result = validated(tmp_path, {"sessions.store": "memory://", "access": ACCESS})
    assert result.config is not None, error_lines(result)
    recorder = RequestRecorder()
    observers = Observers(NullGrantObserver(), NullAuthorizationObserver(), recorder)
    gateway = Gateway(app, result.config, observers=observers)
    await gateway.startup()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def dial(path: str, origin: bytes = b"https://app.example.com") -> None:
        headers = [(b"host", b"app.example.com"), (b"origin", origin)]
        scope: dict[str, Any] = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
                                 "headers": headers, "client": ("127.0.0.1", 1), "scheme": "wss", "subprotocols": [],
                                 "extensions": {RESPONSES: {}} if with_responses else {}}  # fmt: skip
        await gateway(scope, receive, send)

    for path in ("/public/x", "/public/refused", "/public/closed", "/public/unreachable", "/bank", "/none", "/akoya/"):
        await dial(path)
    await dial("/public/x", b"https://evil.example")
    await gateway.shutdown()
    shown = (401, 403, 404, 502) if with_responses else (403,) * 4
    reported = [(each.path, each.status, each.rule.partition(" ")[0], each.outcome) for each in recorder.reported]
    assert reported == [
        ("/public/x", 101, "access[0]", "passed"),
        ("/public/refused", 409, "access[0]", "passed"),
        ("/public/closed", 403, "access[0]", "passed"),
        ("/public/unreachable", shown[3], "access[0]", "upstream-failed"),
        ("/bank", shown[0], "access[1]", "not-connected"),
        ("/none", shown[1], "-", "no-rule"),
        ("/akoya/", shown[2], "-", "not-found"),
        ("/public/x", shown[1], "-", "foreign-origin"),
    ]
    starts = [message for message in sent if message["type"] == f"{RESPONSES}.start"]
    assert len(starts) == (6 if with_responses else 1)
    assert all([name for name, _ in start["headers"]].count(b"x-request-id") == 1 for start in starts)
    assert b"akoya-owner" not in {name for start in starts for name, _ in start["headers"]}


async def test_app_that_receives_after_its_handshake_was_refused_does_not_ask_the_server(tmp_path: Path) -> None:
    """Granian's worker exits if its `receive` is called for the first time then."""
    closed = asyncio.Event()
    received: list[str] = []
    sent: list[tuple[str, int | None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await closed.wait()
            received.extend([(await receive())["type"] for _ in range(3)])
            await send({"type": "websocket.accept"})

    async def receive() -> dict[str, Any]:
        raise AssertionError("the receive of the server was called")

    async def send(message: Any) -> None:
        sent.append((message["type"], message.get("code")))
        closed.set()

    env = InProcessEnv(tmp_path, "memory://", app)
    await env.startup()
    person = Person(env)
    await person.connect()
    cookies = "; ".join(f"{name}={value}" for name, value in person.http.cookies.items())
    headers = [(b"host", b"app.example.com"), (b"origin", b"https://app.example.com"), (b"cookie", cookies.encode())]
    scope = {"type": "websocket", "path": "/accounts/x", "raw_path": b"/accounts/x", "query_string": b"",
             "headers": headers, "client": ("127.0.0.1", 1), "scheme": "wss", "subprotocols": []}  # fmt: skip
    handshake = asyncio.create_task(env.gateway(scope, receive, send))
    async with asyncio.timeout(30):
        while not env.gateway.connections:
            await asyncio.sleep(0.01)
        csrf = await person.csrf()
        assert csrf is not None
        assert await person.post("/akoya/disconnect/mikomo", csrf) == 303
        await handshake
    assert sent == [("websocket.close", 4401)]
    assert received == ["websocket.connect", "websocket.disconnect", "websocket.disconnect"]
    await env.gateway.shutdown()
