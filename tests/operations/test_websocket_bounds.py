"""`upstream.websocket` in the running gateway: both limits hold for either side, and a reload changes them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.operations.processes import Running, until
from tests.upstream.test_websocket import App, origin_of, serving


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def running(app: App, tmp_path: Path) -> Iterator[Running]:
    with serving(app) as server:
        upstream = {"url": str(origin_of(server)), "websocket": {"max_message": "1kB", "idle_timeout": "1s"}}
        with Running(tmp_path, changes={"upstream": upstream}) as run:
            yield run


def dial(run: Running, path: str = "/public/") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{run.port}{path}", proxy=None, compression=None, max_size=None)


def closing(socket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(5)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_a_client_cannot_send_more_than_the_largest_message(running: Running, app: App) -> None:
    with dial(running) as socket:
        socket.send("x" * 1000)
        assert len(socket.recv(5)) == 1000
        socket.send(iter(["x" * 500, "x" * 501]))
        assert closing(socket) == 1009
    until(lambda: [code for code, _ in app.closed] == [1009], "the app hears of it")
    assert app.received == 1


def test_an_app_cannot_send_more_than_the_largest_message(running: Running, app: App) -> None:
    with dial(running, "/public/big") as socket:
        socket.send("1000")
        assert len(socket.recv(5)) == 1000
        socket.send("1001")
        assert closing(socket) == 1009
    until(lambda: [code for code, _ in app.closed] == [1009], "the app hears of it")


def test_a_socket_on_which_nothing_comes_is_closed_and_one_in_use_is_not(running: Running) -> None:
    with dial(running) as socket:
        for _ in range(4):
            time.sleep(0.4)
            socket.send("alive")
            assert socket.recv(5) == "alive"
        assert closing(socket) == 1001


def test_a_reload_changes_them_for_the_websockets_to_come(running: Running) -> None:
    text = running.gateway.config_path.read_text()
    running.gateway.config_path.write_text(text.replace("1kB", "20MB").replace("1s", "1h"))
    running.signal(signal.SIGHUP)
    until(lambda: "configuration reloaded" in running.events(), "it is reloaded")
    with dial(running) as socket:
        time.sleep(1.5)
        socket.send("x" * 19_000_000)
        assert len(socket.recv(10)) == 19_000_000
