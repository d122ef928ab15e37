"""Tests that all paths send the same bytes to the upstream and to the client."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.fast_lane.exchanges import HEADERS, SCRIPTS, dechunked, exchange, patient, settled
from tests.support.environment import Browser, GatewayEnv
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.waiting import until


@pytest.fixture(scope="module", params=["sidecar", "app"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayEnv, GatewayProcess, bytes]]:
    """Yield an environment, a second gateway and the cookies of a session.

    Its gateway uses the fast lane, or the ASGI fast path under uvicorn. The second gateway has the same
    configuration and uses the general path.
    """
    upstream = ScriptedUpstream(SCRIPTS)
    folder = tmp_path_factory.mktemp("env")
    with GatewayEnv(
        folder, upstream=upstream, entrypoint=request.param, changes=patient(upstream.url), algorithm="hmac-sha256"
    ) as env:
        folder = tmp_path_factory.mktemp("plain")
        config = {**env.config(), "listen": f"127.0.0.1:{free_port()}", "admin": None}
        with (
            GatewayProcess(folder, config, env.environ, "--no-fast-lane") as plain_gateway,
            Browser(env) as browser,
        ):
            browser.connect()
            cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
            yield env, plain_gateway, f"Cookie: theirs=1; {cookies}\r\n".encode()


UPSTREAM_TIMEOUT = '"outcome":"upstream-timeout"'
"""In the access log's record. Other records also name the error."""
BODILESS = ("empty", "no-content", "not-modified", "redirect", "nothing", "garbage", "length", "chunked", "until-close")
"""The upstream sends a body for the last three even in response to HEAD."""
CASES = [(method, name) for method in ("GET", "DELETE") for name in SCRIPTS if name != "silent"]
CASES += [("HEAD", name) for name in BODILESS]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_both_paths_give_the_client_the_same_response(
    both: tuple[GatewayEnv, GatewayProcess, bytes], method: str, name: str
) -> None:
    env, plain_gateway, cookies = both
    request = f"{method} /accounts/{name}?q=%20a&b HTTP/1.1\r\n".encode() + HEADERS + cookies + b"\r\n"
    upstream: ScriptedUpstream = env.upstream
    exchange(plain_gateway.port, request, method == "HEAD")  # Both gateways have cached the session after this.
    exchange(env.port, request, method == "HEAD")
    upstream.heads.clear()
    lane = exchange(env.port, request, method == "HEAD")
    asgi = exchange(plain_gateway.port, request, method == "HEAD")
    assert settled(lane[0]) == settled(asgi[0])
    assert settled(dechunked(*lane[:2])) == settled(dechunked(*asgi[:2]))
    assert lane[2] == asgi[2]
    sent = {settled(request) for request in upstream.heads}
    assert len(sent) == 1, sent
    assert b"akoya-id-token: " in sent.pop()


CONTENT = {
    "length": b"hello", "empty": b"", "chunked": b"hello", "trailers": b"hi", "until-close": b"to the end", "no-content": b"",
    "not-modified": b"", "pieces": b"helloworld", "big": b"0123456789" * 40000,
}  # fmt: skip


@pytest.mark.parametrize("lines", [b"", b"Connection: keep-alive\r\n"], ids=["", "keep-alive"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", CONTENT)
def test_http_1_0_client_gets_the_body_as_it_is_and_the_end_of_its_connection(
    both: tuple[GatewayEnv, GatewayProcess, bytes], name: str, method: str, lines: bytes
) -> None:
    env, plain_gateway, cookies = both
    for port in (env.port, plain_gateway.port):
        head, body = until_closed(
            port, f"{method} /accounts/{name} HTTP/1.0\r\n".encode() + lines + HEADERS + cookies + b"\r\n"
        )
        assert b"transfer-encoding" not in head
        assert head.count(b"\r\nconnection: close") == 1
        assert body == (CONTENT[name] if method == "GET" else b"")


def test_http_1_0_client_with_an_expectation_gets_no_interim_response(
    both: tuple[GatewayEnv, GatewayProcess, bytes],
) -> None:
    env, plain_gateway, cookies = both
    lines = b"Expect: 100-continue\r\nContent-Length: 4\r\n"
    for port in (env.port, plain_gateway.port):
        head, body = until_closed(port, b"POST /accounts/length HTTP/1.0\r\n" + lines + HEADERS + cookies + b"\r\nbody")
        assert head.startswith(b"HTTP/1.1 200") or (env.entrypoint == "app" and port == env.port), (
            "uvicorn itself handles this case"
        )
        assert body.endswith(b"hello")


@pytest.mark.parametrize("name", ["torso", "torso-chunked"])
def test_http_1_0_client_can_tell_a_truncated_response_from_a_whole_one(
    both: tuple[GatewayEnv, GatewayProcess, bytes], name: str
) -> None:
    env, plain_gateway, cookies = both
    for port in (env.port, plain_gateway.port):
        try:
            head, body = until_closed(port, f"GET /accounts/{name} HTTP/1.0\r\n".encode() + HEADERS + cookies + b"\r\n")
        except ConnectionResetError:
            assert name == "torso-chunked"
        else:
            assert name == "torso"
            assert b"\r\ncontent-length: 10\r\n" in head
            assert body == b"half"


def until_closed(port: int, request: bytes) -> tuple[bytes, bytes]:
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.sendall(request)
        data = b""
        while more := raw.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_close_delimited_response_is_complete(both: tuple[GatewayEnv, GatewayProcess, bytes]) -> None:
    env, plain_gateway, cookies = both
    for port in (env.port, plain_gateway.port):
        head, body, _ = exchange(port, b"GET /accounts/until-close HTTP/1.1\r\n" + HEADERS + cookies + b"\r\n")
        assert dechunked(head, body) == b"to the end"
        assert body.endswith(b"0\r\n\r\n")


def test_silent_upstream_is_a_504_on_both(both: tuple[GatewayEnv, GatewayProcess, bytes]) -> None:
    env, plain_gateway, cookies = both
    request = b"GET /accounts/silent HTTP/1.1\r\n" + HEADERS + cookies + b"\r\n"
    for port, log in ((env.port, env.gateway.log), (plain_gateway.port, plain_gateway.log)):
        head, body, _ = exchange(port, request)
        assert head.startswith(b"HTTP/1.1 504")
        assert b"upstream-timeout" in body
        if env.entrypoint == "app" and port == env.port:
            # The access log belongs to the server there.
            continue
        until(lambda log=log: UPSTREAM_TIMEOUT in complete_lines(log))  # type: ignore[misc]
        record = next(line for line in complete_lines(log).splitlines() if UPSTREAM_TIMEOUT in line)
        assert json.loads(record)["duration_ms"] > 900, "must be the time that the client waited"


@pytest.mark.parametrize("port", ["lane", "plain"])
def test_pipelined_requests_get_responses_in_order(both: tuple[GatewayEnv, GatewayProcess, bytes], port: str) -> None:
    env, plain_gateway, cookies = both
    names = ["length", "pieces", "undated", "missing-rule", "chunked"]
    targets = [b"/accounts/" + name.encode() if name != "missing-rule" else b"/nowhere" for name in names]
    requests = [b"GET " + target + b" HTTP/1.1\r\n" + HEADERS + cookies + b"\r\n" for target in targets]
    with socket.create_connection(("127.0.0.1", env.port if port == "lane" else plain_gateway.port), 60) as raw:
        raw.sendall(b"".join(requests))
        data = b""
        while data.count(b"HTTP/1.1 ") < 5 or not data.endswith(b"0\r\n\r\n"):
            data += raw.recv(65536)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", data)
    assert statuses == [b"200", b"200", b"200", b"403", b"200"]
    assert data.index(b"hello") < data.index(b"helloworld") < data.index(b"ok")


def test_client_that_leaves_frees_the_upstream(both: tuple[GatewayEnv, GatewayProcess, bytes]) -> None:
    env, _, cookies = both
    request = b"GET /accounts/pieces HTTP/1.1\r\n" + HEADERS + cookies + b"\r\n"
    for _ in range(20):
        raw = socket.create_connection(("127.0.0.1", env.port), 60)
        raw.sendall(request)
        raw.close()
    head, body, _ = exchange(env.port, request)
    assert body == b"helloworld"
    assert head.startswith(b"HTTP/1.1 200")


def test_slow_client_gets_a_large_response_completely(both: tuple[GatewayEnv, GatewayProcess, bytes]) -> None:
    env, _, cookies = both
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", env.port))
    raw.sendall(b"GET /accounts/big HTTP/1.1\r\n" + HEADERS + cookies + b"\r\n")
    raw.settimeout(60)
    data = b""
    while len(data) < 400_000 or not data.endswith(b"6789"):
        piece = raw.recv(8192)
        assert piece
        data += piece
    raw.close()
    assert data.partition(b"\r\n\r\n")[2] == b"0123456789" * 40000
