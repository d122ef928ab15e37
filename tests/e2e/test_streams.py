"""Streams and WebSockets end when the grant they were admitted with ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets import Origin
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer
from tests.support.raw_http import Client
from tests.support.upstream_apps import websocket
from tests.support.waiting import until
from tests.support.websocket_frames import CLOSE, TEXT, frame, read_frame, request

reached, may_accept = threading.Event(), threading.Event()


async def streaming_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send a line every tenth of a second, forever. `/short` sends one line. WebSockets echo.

    `/cut` closes the connection in the middle of its response, and `/late` accepts a handshake once `may_accept` is set.
    """
    if scope["type"] == "websocket" and scope["path"].endswith("late"):
        await receive()
        reached.set()
        await asyncio.to_thread(may_accept.wait, 60)
        with contextlib.suppress(OSError):
            await send({"type": "websocket.accept"})
        return
    if scope["type"] == "websocket" and scope["path"].endswith("refused"):
        await receive()
        echoed = [(name, value) for name, value in scope["headers"] if name.startswith(b"akoya-")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-own", b"1"), *echoed]})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
        return
    if scope["type"] != "http":
        return
    if scope["path"].endswith("cut"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        send.__self__.transport.close()
        return
    kind = b"text/event-stream" if scope["path"].endswith("stream") else b"application/octet-stream"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    while not scope["path"].endswith("short"):
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"data: x\n\n"})


@pytest.fixture(scope="module", params=["lane", "asgi", "app", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    folder = tmp_path_factory.mktemp("env")
    options = ("--no-fast-lane",) if request.param == "asgi" else ()
    entrypoint = request.param if request.param in ("app", "middleware") else "sidecar"
    with GatewayEnv(
        folder, upstream=AppServer(streaming_app), options=options, entrypoint=entrypoint, app=streaming_app
    ) as env:
        yield env


def disconnect(browser: Browser) -> None:
    page = browser.connections()
    response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": page["csrf"]})
    assert response.status_code == 303


def ended_within(stream: Iterator[bytes], seconds: float) -> bool:
    """Return whether the stream ends by itself, cleanly or not."""
    ended = threading.Event()

    def read() -> None:
        try:
            for _ in stream:
                pass
        except httpx.HTTPError:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    return ended.wait(seconds)


def test_event_stream_closes_when_its_grant_is_disconnected(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    # The fast lane needs a cached session and an idle connection to the upstream.
    for _ in range(2):
        assert browser.fetch("/accounts/short").status_code == 200
    with browser.http.stream("GET", "/accounts/stream") as response:
        pieces = response.iter_raw()
        assert next(pieces).startswith(b"data: ")
        time.sleep(0.5)
        disconnect(browser)
        assert ended_within(pieces, 30)


def test_stream_of_another_user_stays_open(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    with env.browser() as other:
        other.connect(user="mikomo_4")
        with other.http.stream("GET", "/accounts/stream") as response:
            pieces = response.iter_raw()
            next(pieces)
            disconnect(browser)
            assert not ended_within(pieces, 3)


def test_websocket_closes_when_its_grant_is_disconnected(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    with connect(f"ws://127.0.0.1:{env.port}/accounts/ws", additional_headers={"Cookie": cookies}) as socket:
        assert "akoya-id-token" in json.loads(socket.recv(30))
        socket.send("still here")
        assert socket.recv(30) == "still here"
        disconnect(browser)
        with pytest.raises(Exception, match="4401"):
            socket.recv(30)


def test_websocket_closes_in_the_middle_of_a_clients_message(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    with Client(env.port) as client:
        client.send(request(b"/accounts/ws")[:-2] + f"Cookie: {cookies}\r\n\r\n".encode())
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert b"akoya-id-token" in read_frame(client)[1]
        client.send(frame(TEXT, b"x" * 1000, mask=True)[:500])
        time.sleep(0.2)
        disconnect(browser)
        opcode, data = read_frame(client)
        assert (opcode, data[:2]) == (CLOSE, (4401).to_bytes(2, "big"))


def test_websocket_from_a_page_of_another_origin_is_refused(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    with (
        pytest.raises(Exception, match="403"),
        connect(
            f"ws://127.0.0.1:{env.port}/accounts/ws",
            additional_headers={"Cookie": cookies},
            origin=Origin("https://evil.example"),
        ),
    ):
        pass


def test_websocket_without_a_grant_is_refused(env: GatewayEnv) -> None:
    with pytest.raises(Exception, match=r"401|403"), connect(f"ws://127.0.0.1:{env.port}/accounts/ws"):
        pass


def test_refused_websocket_whose_body_echoes_a_token_does_not_disclose_it(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    headers = {"Cookie": cookies, "Origin": env.url}
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(env.url.replace("http", "ws") + "/accounts/refused", additional_headers=headers),
    ):
        pass
    response = refused.value.response
    assert (response.status_code, response.headers["x-own"]) == (403, "1")
    assert not [name for name, _ in response.headers.raw_items() if name.lower().startswith("akoya")]


def errors_in(env: GatewayEnv) -> list[str]:
    return [line for line in env.log().splitlines() if '"level":"error"' in line or "Traceback" in line]


def test_websocket_whose_grant_ends_during_its_handshake_is_refused_and_logged_once(
    env: GatewayEnv, browser: Browser
) -> None:
    browser.connect()
    may_accept.clear()
    reached.clear()
    with Client(env.port) as client:
        client.send(request(b"/accounts/late")[:-2] + browser.cookie_header() + b"\r\n")
        until(reached.is_set)
        disconnect(browser)
        assert client.rest().startswith(b"HTTP/1.1 403 ")
    may_accept.set()
    if env.entrypoint == "sidecar":
        # The access log is written in the turn of the event loop after that of the response.
        until(lambda: "/accounts/late" in env.log(), "the request is in the access log")
        lines = [json.loads(line) for line in env.log().splitlines() if "/accounts/late" in line]
        assert [(line["status"], line["outcome"]) for line in lines] == [(403, "exchange-ended")]
    assert errors_in(env) == []


def test_response_that_the_app_truncates_is_truncated_for_the_client_and_logs_no_traceback(
    env: GatewayEnv, browser: Browser
) -> None:
    if env.entrypoint == "middleware":
        # There the app's response is the server's own.
        return
    browser.connect()
    for _ in range(2):
        assert browser.fetch("/accounts/short").status_code == 200
    for _ in range(3):
        with pytest.raises(httpx.RemoteProtocolError):
            browser.fetch("/accounts/cut")
    with socket.create_connection(("127.0.0.1", env.port), 30) as client:
        client.sendall(b"GET /accounts/cut HTTP/1.0\r\nHost: a\r\n" + browser.cookie_header() + b"\r\n")
        with pytest.raises(ConnectionResetError):  # an orderly close would look like the end of the response
            while client.recv(65_536):
                pass
    assert errors_in(env) == []
    if env.entrypoint == "sidecar":
        lines = [json.loads(line) for line in env.log().splitlines() if "response truncated" in line]
        assert {(line["level"], line["problem"]) for line in lines} == {("warning", "upstream-closed")}
        assert 1 <= len(lines) <= 4
