"""Tests of WebSockets through the running gateway, both as a tunnel and as relayed messages.

They are counted and logged, the limits of `upstream.websocket` apply to both sides, and a reload changes these limits.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.metrics import values
from tests.support.raw_http import Client
from tests.support.sidecar import Running
from tests.support.waiting import until
from tests.support.websocket_app import App, origin_of, serving
from tests.support.websocket_frames import CLOSE, TEXT, frame, read_frame, request


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture(params=[(), ("--no-fast-lane",)], ids=["tunnel", "messages"])
def running(request: pytest.FixtureRequest, app: App, tmp_path: Path) -> Iterator[Running]:
    with serving(app) as server:
        upstream = {"url": str(origin_of(server)), "websocket": {"max_message": "1kB", "idle_timeout": "4s"}}
        with Running(tmp_path, *request.param, changes={"upstream": upstream}) as run:
            yield run


def dial(run: Running, path: str = "/public/") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{run.port}{path}", proxy=None, compression=None, max_size=None)


def closing(socket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(30)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_socket_is_counted_while_it_is_open_and_logged_once(running: Running) -> None:
    def count() -> float:
        return values(running.fetch_admin("/metrics").content)["akoya_gateway_websockets{}"]

    assert count() == 0
    with dial(running) as one, dial(running):
        assert count() == 2
        one.send("x")
        assert one.recv(30) == "x"
    until(lambda: count() == 0, "both WebSockets are closed")
    lines = [line for line in running.log() if line.get("path") == "/public/"]
    assert [(line["status"], line["rule"], line["outcome"]) for line in lines] == [
        (101, "access[0] /public/*", "passed")
    ] * 2
    assert not [line for line in running.log() if line["level"] == "error"]


def test_client_cannot_send_more_than_the_largest_message(running: Running, app: App) -> None:
    with dial(running) as socket:
        socket.send("x" * 1000)
        assert len(socket.recv(30)) == 1000
        socket.send("x" * 1001)
        assert closing(socket) == 1009
    until(lambda: [code for code, _ in app.closed] == [1009], "the app receives the close")
    with dial(running) as socket:
        # The client ends the message with an empty fragment, possibly after the gateway has closed.
        with contextlib.suppress(ConnectionClosed):
            socket.send(iter(["x" * 500, "x" * 501]))
        assert closing(socket) == 1009
    until(lambda: len(app.closed) == 2, "the app receives the close")
    assert app.received == 1


def test_app_cannot_send_more_than_the_largest_message(running: Running, app: App) -> None:
    with dial(running, "/public/big") as socket:
        socket.send("1000")
        assert len(socket.recv(30)) == 1000
        socket.send("1001")
        assert closing(socket) == 1009
    until(lambda: [code for code, _ in app.closed] == [1009], "the app receives the close")


def test_socket_on_which_nothing_comes_is_closed_and_one_in_use_is_not(running: Running) -> None:
    with dial(running) as socket:
        for _ in range(45):
            time.sleep(0.1)
            socket.send("alive")
            assert socket.recv(30) == "alive"
        assert closing(socket) == 1001


def test_reload_changes_them_for_the_websockets_to_come(running: Running) -> None:
    text = running.gateway.config_path.read_text()
    running.gateway.config_path.write_text(text.replace("1kB", "20MB").replace("4s", "1h"))
    running.signal(signal.SIGHUP)
    until(lambda: "configuration reloaded" in running.events(), "it is reloaded")
    with dial(running) as socket:
        time.sleep(4.5)
        socket.send("x" * 19_000_000)
        assert len(socket.recv(30)) == 19_000_000


@pytest.mark.parametrize("half", [False, True], ids=["between frames", "within a frame"])
def test_drain_does_not_wait_for_an_unresponsive_client(half: bool, tmp_path: Path) -> None:
    for options in ((), ("--no-fast-lane",)):
        with Running(tmp_path, "--grace", "1", *options) as run, Client(run.port) as client:
            client.send(request(b"/public/ws"))
            client.until(b"\r\n\r\n")
            if half:
                client.send(frame(TEXT, b"x" * 100, mask=True)[:50])
                time.sleep(0.1)
            assert run.terminate() == 0
            assert read_frame(client) == (CLOSE, (1012).to_bytes(2, "big"))
            assert [line for line in run.log() if line["level"] == "error"] == []
