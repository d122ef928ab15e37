"""Tests that the fast lane is really used, and only for simple requests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.fast_lane.in_process import InProcess
from tests.support.environment import Browser, GatewayEnv
from tests.support.raw_http import Client, fetch
from tests.support.scripted_upstream import ScriptedUpstream, plain


@pytest.fixture
def lane(env: GatewayEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    with InProcess(env, monkeypatch) as lane:
        yield lane


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env")) as env:
        yield env


def test_known_session_rides_in_the_lane_and_the_signature_is_valid(env: GatewayEnv, lane: InProcess) -> None:
    with Browser(env) as browser:
        browser.connect()
        url = f"http://127.0.0.1:{lane.port}/accounts?x=1"
        seen = [browser.http.get(url).json() for _ in range(3)]
    assert "GET /accounts?x=1" in lane.departures
    assert all(each["signature"].startswith("valid: ") for each in seen)


@pytest.mark.parametrize(
    "request_",
    [("POST", "/accounts", b"body"), ("GET", "/akoya/", None), ("GET", "/nowhere", None), ("GET", "/a/../accounts", None),
     ("GET", "/accounts#x", None)],
)  # fmt: skip
def test_complex_request_takes_the_general_path(
    env: GatewayEnv, lane: InProcess, request_: tuple[str, str, bytes]
) -> None:
    method, path, body = request_
    with Browser(env) as browser:
        browser.connect()
        browser.http.get(f"http://127.0.0.1:{lane.port}/accounts")
        lane.departures.clear()
        cookies = "; ".join(f"{n}={v}" for n, v in browser.http.cookies.items())
    with socket.create_connection(("127.0.0.1", lane.port), 60) as raw:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        raw.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n{length}\r\n".encode() + (body or b"")
        )
        assert raw.recv(20).startswith(b"HTTP/1.1 ")
    assert lane.departures == []


def test_without_a_session_nothing_rides(env: GatewayEnv, lane: InProcess) -> None:
    with Browser(env) as browser:
        response = browser.http.get(f"http://127.0.0.1:{lane.port}/accounts")
    assert response.status_code == 401
    assert lane.departures == []


def test_public_paths_ride_without_a_token(env: GatewayEnv, lane: InProcess) -> None:
    with Browser(env) as browser:
        for _ in range(2):
            seen = browser.http.get(f"http://127.0.0.1:{lane.port}/public/x").json()
    assert lane.departures[-1] == "GET /public/x"
    assert not [name for name, _ in seen["headers"] if name.startswith("akoya")]


@pytest.mark.parametrize("before", ["GET /public/x", "POST /public/x", "PUT /nowhere"])
@pytest.mark.parametrize("times", [1, 3])
def test_websocket_on_a_connection_that_had_requests_is_not_closed_as_idle(
    env: GatewayEnv, lane: InProcess, before: str, times: int
) -> None:
    """This is what a reverse proxy in front does, which uses few connections for all its clients."""
    lane.keep(3)
    with Client(lane.port) as client:
        for _ in range(times):
            client.send(f"{before} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            client.response()
        with connect(f"ws://127.0.0.1:{lane.port}/public/ws", sock=client.sock) as websocket:
            websocket.recv(30)
            time.sleep(3.7)
            websocket.send("still here")
            assert websocket.recv(30) == "still here"


@pytest.mark.parametrize("before", ["GET /public/x", "POST /public/x"])
@pytest.mark.parametrize("trickle", [b"", b"\r\n"])
def test_unused_connection_is_closed(env: GatewayEnv, lane: InProcess, before: str, trickle: bytes) -> None:
    lane.keep(1)
    with Client(lane.port) as client:
        for _ in range(3):
            client.send(f"{before} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            client.response()
        client.send(trickle)
        assert client.closed(30)


@pytest.mark.parametrize("method", ["GET", "POST"], ids=["in the lane", "beside it"])
def test_clients_that_read_nothing_leave_the_upstream_to_others_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    responses = {"big": b"x" * 20_000_000, "hi": b"hi"}
    scripts = {
        name: plain(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        for name, body in responses.items()
    }
    upstream = ScriptedUpstream(scripts)
    changes = {"upstream": {"url": upstream.url, "pool": 2, "timeout": {"connect": "60s"}}}
    with (
        GatewayEnv(tmp_path, upstream=upstream, changes=changes) as env,
        InProcess(env, monkeypatch, send_timeout=1.0) as lane,
        contextlib.ExitStack() as crowd,
    ):
        for _ in range(2):
            client = crowd.enter_context(Client(lane.port))
            client.send(b"GET /public/hi HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"hi"
            client.send(f"{method} /public/big HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            client.until(b"\r\n\r\n")
        assert fetch(lane.port, "/public/hi")[::2] == (200, b"hi")


@pytest.mark.parametrize("begun", [False, True])
def test_disconnected_user_gets_the_pending_response_and_no_more_of_a_started_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    head, body = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"late"
    requested, go = threading.Event(), threading.Event()

    def slow(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head if begun else b"")
        requested.set()
        go.wait(60)
        connection.sendall(body if begun else head + body)

    upstream = ScriptedUpstream({"slow": slow, "hi": plain(head + body)})
    with (
        GatewayEnv(tmp_path, upstream=upstream) as env,
        InProcess(env, monkeypatch) as lane,
        Browser(env) as browser,
        Client(lane.port) as client,
    ):
        browser.connect()
        here = f"http://127.0.0.1:{lane.port}"
        assert browser.http.get(f"{here}/accounts/hi").status_code == 200
        cookies = "; ".join(f"{n}={v}" for n, v in browser.http.cookies.items())
        csrf = browser.http.get(f"{here}/akoya/", headers={"accept": "application/json"}).json()["csrf"]
        client.send(f"GET /accounts/slow HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n".encode())
        assert requested.wait(60)
        time.sleep(1.5)  # The connection monitor watches the request from the pool's second tick on.
        left = browser.http.post(f"{here}/akoya/logout", data={"csrf": csrf}, headers={"origin": env.url})
        assert left.status_code == 303
        time.sleep(0.5)
        if begun:
            assert client.rest().endswith(b"\r\n\r\n"), "only the head may have arrived"
            go.set()
        else:
            go.set()
            assert client.response().body == body
            client.send(f"GET /accounts/slow HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n".encode())
            assert client.response().status == 401
    assert "GET /accounts/slow" in lane.departures
