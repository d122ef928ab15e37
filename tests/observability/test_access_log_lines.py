"""Compare the access log of a running gateway with recorded lines, byte for byte except for times.

Every kind of request is sent to a gateway that uses the fast lane and writes JSON, and to one that uses only the general
path and writes for a terminal. To record the lines again after an intended change: `AKOYA_RECORD=1`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.environment import ACCESS, GatewayEnv
from tests.support.sidecar import Running

GOLDEN = Path(__file__).with_name("golden")
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJlX3RoYXRfaXNfbG9uZw"

_TIMES = (
    (re.compile(rb'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'), b'"timestamp":"T"'),
    (re.compile(rb'"duration_ms":\d+\.\d\d,'), b'"duration_ms":D,'),
    (re.compile(rb"^\d\d:\d\d:\d\d\.\d{3} request ", re.M), b"T request "),
    (re.compile(rb" \d+\.\d(ms - )"), rb" D\1"),
)

_STARTS = (b'{"timestamp":"T","level":"info","event":"request",', b"T request ")

PLAIN: tuple[tuple[bytes, bytes], ...] = (
    (b"GET", b"/"),
    (b"GET", b"/public/a?code=hush&x=1"),
    (b"GET", b"/accounts"),
    (b"GET", b"/accounts"),
    (b"HEAD", b"/accounts/head"),
    (b"DELETE", b"/accounts/deleted"),
    (b"OPTIONS", b"/accounts"),
    (b"GET", b"/accounts/" + JWT.encode()),
    (b"GET", b"/accounts/" + JWT.encode()),
    (b"GET", b"/accounts/code=hush;state=hush"),
    (b"GET", b"/accounts/it's@home:8080"),
    (b"GET", b"/accounts/%22quoted%22%0d%0a"),
    (b"GET", b"/accounts/caf\xc3\xa9"),
    (b"GET", b"/accounts/" + b"long/" * 500),
    (b"GET", b"/accounts/a%2fb"),
    (b"GET", b"/accounts/../closed"),
    (b"GET", b"/nowhere"),
    (b"GET", b"/closed"),
    (b"GET", b"/optional"),
    (b"GET", b"/akoya/"),
    (b"GET", b"/akoya/nothing-here"),
    (b"DELETE", b"/akoya/"),
    (b"GET", b"/akoya/connect/mikomo?return_to=/accounts"),
    (b"GET", b"/akoya/callback?code=hush&state=hush"),
    (b"GET", b"/dead/end"),
)
"""Requests without a body, each sent with the session and without it."""


def _env(folder: Path, form: str, dead: int) -> GatewayEnv:
    changes = {
        "logging": {"format": form},
        "trusted_proxies": ["127.0.0.1/32"],
        "forward_auth": True,
        "upstreams": {"dead": {"url": f"http://127.0.0.1:{dead}"}},
        "access": [
            *ACCESS,
            {"path": "/dead/*", "require": "nothing", "upstream": "dead"},
            {"path": "/ws", "require": "any", "otherwise": "unauthorized"},
        ],
    }
    return GatewayEnv(folder, changes=changes, options=() if form == "json" else ("--no-fast-lane",))


@pytest.mark.parametrize("form", ["json", "console"])
def test_access_log_of_each_kind_of_request_equals_the_recorded_lines(tmp_path: Path, form: str) -> None:
    with socket.socket() as dead:
        # Bound but not listening: connections to it are refused.
        dead.bind(("127.0.0.1", 0))
        with _env(tmp_path, form, dead.getsockname()[1]) as env, env.browser() as browser:
            browser.connect()
            cookies = "; ".join(f"{each.name}={each.value}" for each in browser.http.cookies.jar).encode()
            _send_all(env, cookies)
    # After the gateway has stopped: everything has been written.
    log = env.gateway.log.read_bytes()
    for pattern, replacement in _TIMES:
        log = pattern.sub(replacement, log)
    lines = [line for line in log.splitlines(keepends=True) if line.startswith(_STARTS) and b"golden-" in line]
    golden = GOLDEN / f"access-log.{form}"
    if os.environ.get("AKOYA_RECORD"):
        golden.write_bytes(b"".join(lines))
    assert lines == golden.read_bytes().splitlines(keepends=True)


def _send_all(env: GatewayEnv, cookies: bytes) -> None:
    number = 0
    with Client(env.port) as client:
        for session in (b"", b"Cookie: " + cookies + b"\r\n"):
            for method, target in PLAIN:
                number += 1
                client.send(method, target, session, number)
            for head, body in (
                (b"Content-Length: 4\r\n", b"body"),
                (b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
            ):
                number += 1
                client.send(b"POST", b"/accounts/posted", session + head, number, body)
            for uri in (b"/accounts/asked?code=hush", b"/accounts/asked?code=hush", b"/nowhere", b"/a%2fb"):
                number += 1
                original = b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: %b\r\n" % uri
                client.send(b"GET", b"/akoya/forward-auth", session + original, number)
            # The same bytes twice, so that the second check is found in the cache of the fast lane.
            for _ in range(2):
                client.send(b"GET", b"/akoya/forward-auth", session + original.replace(b"/a%2fb", b"/optional"), 999)
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %b\r\n" % env.url.encode()
            for target in (b"/ws?code=hush", b"/closed"):
                number += 1
                with Client(env.port) as websocket:
                    websocket.send(b"GET", target, session + upgrade, number)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_access_log_is_complete_and_in_order_after_reload_and_sigterm(tmp_path: Path, workers: str) -> None:
    changes = {"trusted_proxies": ["127.0.0.1/32"]}
    with Running(tmp_path, "--workers", workers, changes=changes) as run, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(run.port)) for _ in range(4)]
        for number in range(100):
            for name, client in enumerate(clients):
                client.send(b"GET", b"/public/x", b"", 1000 * name + number)
            if number == 50:
                run.signal(signal.SIGHUP)
        assert run.terminate() == 0
    found = [line["request_id"] for line in run.log() if line["event"] == "request"]
    for name in range(4):
        sent = [f"golden-{1000 * name + number}" for number in range(100)]
        assert [each for each in found if each in set(sent)] == sent
    assert len(found) == 400


class Client:
    """A connection that sends one request at a time and reads the whole response."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Client:
        self._socket = socket.create_connection(("127.0.0.1", self._port), 60)
        self._file = self._socket.makefile("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, method: bytes, target: bytes, lines: bytes, number: int, body: bytes = b"") -> int:
        """Send one request, read its response, and return the status."""
        self._socket.sendall(
            b"%b %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Request-Id: golden-%d\r\nAccept: application/json\r\n%b\r\n%b"
            % (method, target, self._port, number, lines, body)
        )
        status = int(self._file.readline().split()[1])
        headers = dict(line.rstrip().lower().split(b": ", 1) for line in iter(self._file.readline, b"\r\n"))
        if method != b"HEAD" and status not in (101, 204, 304):
            self._read_body(headers)
        if headers.get(b"connection") == b"close":
            self.__exit__()
            self.__enter__()
        return status

    def _read_body(self, headers: dict[bytes, bytes]) -> None:
        if b"content-length" in headers:
            self._file.read(int(headers[b"content-length"]))
            return
        assert headers.get(b"transfer-encoding") == b"chunked", headers
        while size := int(self._file.readline(), 16):
            self._file.read(size + 2)
        self._file.readline()
