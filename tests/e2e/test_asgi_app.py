"""`akoya_gateway:sidecar` under other servers than uvicorn, if installed: `pip install hypercorn granian`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from akoya_gateway import load_config, sidecar
from tests.support import environment as environment_module
from tests.support.config_documents import ENVIRON, changed
from tests.support.environment import Browser, GatewayEnv
from tests.support.hypercorn_server import Hypercorn
from tests.support.processes import PYTHON, AnyServerProcess, AppServer
from tests.support.upstream_apps import asgi_app, websocket


class App:
    """`/.../stream` never ends, `/.../slow` takes a while, and `/.../cut` closes the connection in mid-response.

    `left` lists the paths whose client disconnected first.
    """

    def __init__(self) -> None:
        self.left: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
        elif path.endswith("cut"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"truncated", "more_body": True})
            send.__self__.transport.close()
        elif path.endswith(("stream", "slow")):
            kind = b"text/event-stream" if path.endswith("stream") else b"text/plain"
            gone = asyncio.create_task(self._gone(path, receive))
            if path.endswith("slow"):
                await asyncio.wait([gone], timeout=60)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            while not gone.done():
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
                await asyncio.sleep(0.05)
        elif scope["type"] == "http":
            await asgi_app()(scope, receive, send)

    async def _gone(self, path: str, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.append(path)

    def was_left(self, path: str) -> bool:
        deadline = time.monotonic() + 60
        while path not in self.left and time.monotonic() < deadline:
            time.sleep(0.02)
        return path in self.left


class Granian(AnyServerProcess):
    def command(self) -> list[str]:
        self._environ["AKOYA_GATEWAY_CONFIG"] = str(self.config_path)
        return [
            PYTHON, "-m", "granian", "--interface", "asgi", "--factory", "akoya_gateway:sidecar", "--host", "127.0.0.1",
            "--port", str(self.port),
        ]  # fmt: skip


@pytest.fixture(scope="module", params=[Hypercorn, Granian], ids=lambda server: server.__name__.lower())
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayEnv, App]]:
    if find_spec(request.param.__name__.lower()) is None:
        pytest.skip("not installed")
    app = App()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment_module, "AnyServerProcess", request.param)
        with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint="app", upstream=AppServer(app)) as env:
            yield env, app
            assert env.gateway.stop() == 0  # type: ignore[union-attr]


@pytest.fixture
def browser(served: tuple[GatewayEnv, App]) -> Iterator[Browser]:
    with Browser(served[0]) as browser:
        browser.connect()
        for _ in range(3):
            # From the second request on, the fast lane serves them.
            assert browser.fetch("/accounts/a").status_code == 200
        yield browser


def test_requests_with_and_without_bodies(browser: Browser) -> None:
    names = [name for name, _ in browser.fetch("/accounts/a").json()["headers"]]
    assert {"akoya-id-token", "signature", "x-forwarded-for"} <= set(names)
    assert len(browser.fetch("/accounts/a", "POST", content=b"x" * 5000).json()["body"]) == 5000
    pieces = (b"y" * 10_000 for _ in range(50))
    assert len(browser.fetch("/accounts/a", "POST", content=pieces).json()["body"]) == 500_000
    response = browser.fetch("/accounts/a", "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert browser.fetch("/nowhere").status_code == 403


def test_disconnected_client_ends_its_request(served: tuple[GatewayEnv, App], browser: Browser) -> None:
    with browser.http.stream("GET", "/accounts/1/stream") as response:
        assert next(response.iter_raw()).startswith(b"data: ")
    assert served[1].was_left("/accounts/1/stream")
    with pytest.raises(httpx.TimeoutException):
        browser.http.get("/accounts/1/slow", timeout=5)
    assert served[1].was_left("/accounts/1/slow")


def test_stream_closes_when_its_grant_ends(served: tuple[GatewayEnv, App], browser: Browser) -> None:
    require_stream_to_close(browser)
    assert served[1].was_left("/accounts/2/stream")


def require_stream_to_close(browser: Browser) -> None:
    """Disconnect the bank while an event stream is open. The stream must end between two events."""
    with browser.http.stream("GET", "/accounts/2/stream", timeout=60) as response:
        pieces = response.iter_raw()
        assert next(pieces).startswith(b"data: ")
        csrf = browser.connections()["csrf"]
        assert browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf}).status_code == 303
        began = time.monotonic()
        for piece in pieces:
            assert piece.endswith(b"\n\n")
            assert time.monotonic() < began + 60


def require_truncated_responses(browser: Browser) -> None:
    """Request truncated responses on the general path and in the fast lane. The client must notice each."""
    for method in ("POST", "GET", "POST", "GET"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            browser.fetch("/accounts/cut", method)
    if isinstance(browser.env.gateway, Granian):  # It offers no way to reset the connection (docs/operations.md).
        return
    with socket.create_connection(("127.0.0.1", browser.env.port), 30) as client:
        # Without chunks, an orderly close would look like the end of the response.
        client.sendall(b"GET /accounts/cut HTTP/1.0\r\nHost: a\r\n" + browser.cookie_header() + b"\r\n")
        with pytest.raises(ConnectionResetError):
            while client.recv(65_536):
                pass


def test_response_that_the_app_truncates_is_truncated_for_the_client(
    served: tuple[GatewayEnv, App], browser: Browser
) -> None:
    require_truncated_responses(browser)
    assert "Traceback" not in served[0].log()


class Daphne(AnyServerProcess):
    def command(self) -> list[str]:
        folder = self.config_path.parent
        (folder / "daphne_app.py").write_text("from akoya_gateway import sidecar\n\napp = sidecar()\n")
        self._environ |= {"AKOYA_GATEWAY_CONFIG": str(self.config_path), "PYTHONPATH": str(folder)}
        return [PYTHON, "-m", "daphne", "-b", "127.0.0.1", "-p", str(self.port), "-v", "0", "daphne_app:app"]


def test_streams_and_truncated_responses_end_under_daphne(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daphne keeps the connection open if an app raises after the response has started."""
    pytest.importorskip("daphne")
    monkeypatch.setattr(environment_module, "AnyServerProcess", Daphne)
    app = App()
    with GatewayEnv(tmp_path, entrypoint="app", upstream=AppServer(app)) as env, Browser(env) as browser:
        for _ in range(2):  # The first time on the general path, then on the fast lane.
            browser.connect()
            require_stream_to_close(browser)
            assert app.was_left("/accounts/2/stream")
            app.left.clear()
            browser.connect()
            for _ in range(3):
                assert browser.fetch("/accounts/a").status_code == 200
            require_truncated_responses(browser)
            assert "Traceback" not in env.log()


def test_websockets_pass_through_the_asgi_app(served: tuple[GatewayEnv, App], browser: Browser) -> None:
    url, origin = served[0].url.replace("http", "ws") + "/accounts/ws", {"Origin": served[0].url}
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    with connect(url, additional_headers={"Cookie": cookies, **origin}) as ws:
        assert "akoya-id-token" in str(ws.recv())
        ws.send("hello")
        assert ws.recv() == "hello"
    with pytest.raises(InvalidStatus), connect(url, additional_headers=origin):
        pass


async def test_websocket_scope_may_lack_all_optional_keys(tmp_path: Path) -> None:
    """Daphne leaves out `scheme`, and ASGI allows servers to leave out more."""
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    accepted = asyncio.Event()
    incoming = [{"type": "websocket.receive", "text": "hello"}, {"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if len(incoming) == 1:
            await accepted.wait()  # ASGI: no messages before the handshake is accepted.
        if not incoming:
            await asyncio.Event().wait()  # The client sends nothing more.
        return incoming.pop()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.accept":
            accepted.set()
        await sent.put(message)

    with AppServer(App()) as upstream:
        upstream_url = f"http://127.0.0.1:{upstream.port}"
        changes = {"access": [{"path": "/pub/*", "require": "nothing"}], "sessions.store": "memory://"}
        document = changed({**changes, "upstream.url": upstream_url})
        (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(document))
        app: Any = sidecar(load_config(tmp_path / "gateway.yaml", ENVIRON))
        headers = [(b"host", b"app.example.com"), (b"origin", b"https://app.example.com")]
        served = asyncio.create_task(app({"type": "websocket", "path": "/pub/x", "headers": headers}, receive, send))
        messages = [await asyncio.wait_for(sent.get(), 30) for _ in range(3)]
        assert [message["type"] for message in messages] == ["websocket.accept", *["websocket.send"] * 2]
        assert messages[2]["text"] == "hello"
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)
        await app.gateway.shutdown()


def test_control_character_in_a_header_value_is_refused(served: tuple[GatewayEnv, App], browser: Browser) -> None:
    """A server may let one pass to the gateway, and an app may end the header there (RFC 9110 section 5.5)."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    host, port = served[0].url.removeprefix("http://").split(":")
    for character in (b"\x01", b"\x0b", b"\x1f", b"\x7f"):
        with socket.create_connection((host, int(port)), timeout=60) as client:
            head = f"GET /accounts/a HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookies}\r\nConnection: close\r\n"
            client.sendall(head.encode() + b"X-Name: a" + character + b"b\r\n\r\n")
            received = b"".join(iter(partial(client.recv, 65536), b""))
        assert received == b"" or received.startswith(b"HTTP/1.1 400 "), (character, received)
