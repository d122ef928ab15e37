"""Tests of several upstreams with the fast lane.

Both paths send the same bytes to each upstream, the fast lane follows the access rules, and a failing upstream does not
affect the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fast_lane.exchanges import HEADERS, SCRIPTS, dechunked, exchange, settled
from tests.fast_lane.in_process import InProcess
from tests.support.environment import ACCESS, Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess
from tests.support.raw_http import Client
from tests.support.scripted_upstream import ScriptedUpstream

RULES = [
    {"path": "/other/silent", "require": "any", "upstream": "impatient"},
    {"path": "/other/*", "require": "any", "upstream": "other"},
    *ACCESS,
]


class Both:
    """A gateway with the fast lane and one without, two raw upstreams behind each, and a session's cookies."""

    def __init__(self, env: GatewayEnv, plain: GatewayProcess, other: ScriptedUpstream, cookies: bytes) -> None:
        self.env = env
        self.ports = {"lane": env.port, "asgi": plain.port}
        self.upstreams: dict[str, ScriptedUpstream] = {"accounts": env.upstream, "other": other}
        self.cookies = cookies

    def request(self, method: str, path: str) -> bytes:
        return f"{method} {path} HTTP/1.1\r\n".encode() + HEADERS + self.cookies + b"\r\n"

    def received(self) -> dict[str, list[bytes]]:
        """Return what each upstream received since the last call."""
        taken = {name: [settled(one) for one in upstream.heads] for name, upstream in self.upstreams.items()}
        for upstream in self.upstreams.values():
            upstream.heads.clear()
        return taken


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    upstream, other = ScriptedUpstream(SCRIPTS), ScriptedUpstream(SCRIPTS)
    timeout = {"connect": "60s", "read": "60s"}
    changes = {
        "access": RULES,
        "upstream": {"url": upstream.url, "timeout": timeout},
        "upstreams": {
            "other": {"url": other.url, "timeout": timeout},
            "impatient": {"url": other.url, "timeout": {**timeout, "read": "1s"}},
        },
    }
    folder, plain_folder = tmp_path_factory.mktemp("env"), tmp_path_factory.mktemp("plain")
    with other, GatewayEnv(folder, upstream=upstream, changes=changes, algorithm="hmac-sha256") as env:
        config = {**env.config(), "listen": f"127.0.0.1:{free_port()}", "admin": None}
        with GatewayProcess(plain_folder, config, env.environ, "--no-fast-lane") as plain, Browser(env) as browser:
            browser.connect()
            cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
            yield Both(env, plain, other, f"Cookie: {cookies}\r\n".encode())


@pytest.mark.parametrize("name", ["length", "chunked", "no-content", "pieces", "torso", "garbage", "nothing"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_both_paths_do_the_same_with_a_named_upstream(both: Both, method: str, name: str) -> None:
    seen = {}
    for way, port in both.ports.items():
        request = both.request(method, f"/other/{name}?q=%20a&b")
        exchange(port, request)  # The session is cached after this.
        both.received()
        head, body, closed = exchange(port, request)
        sent = both.received()
        assert sent["accounts"] == []
        seen[way] = settled(head), settled(dechunked(head, body)), closed, sorted(set(sent["other"]))
    assert seen["lane"] == seen["asgi"]


def test_requests_of_one_connection_part_on_both_paths_alike(both: Both) -> None:
    paths = ["/accounts/length", "/other/length", "/other/undated", "/accounts/chunked"] * 3
    seen = {}
    for way, port in both.ports.items():
        both.received()
        with Client(port) as client:
            responses = [client.request(both.request("GET", path)) for path in paths]
        sent = both.received()
        for name, requests in sent.items():
            assert len(requests) == 6
            assert all(f" /{name}/".encode() in request.partition(b"\r\n")[0] for request in requests)
        seen[way] = [(response.status, settled(response.head), settled(response.body)) for response in responses], sent
    assert seen["lane"] == seen["asgi"]


@pytest.mark.parametrize("way", ["lane", "asgi"])
def test_silent_one_leaves_the_other_alone(both: Both, way: str) -> None:
    port = both.ports[way]
    head, body, _ = exchange(port, both.request("GET", "/other/silent"))
    assert (head[:12], b"upstream-timeout" in body) == (b"HTTP/1.1 504", True)
    assert exchange(port, both.request("GET", "/accounts/length"))[1] == b"hello"


def test_both_ride_in_the_lane(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess(both.env, monkeypatch) as lane, Client(lane.port) as client:
        for _ in range(3):
            for name in ("accounts", "other"):
                assert client.request(both.request("GET", f"/{name}/length")).body == b"hello"
    assert lane.departures.count("GET /accounts/length") >= 1
    assert lane.departures.count("GET /other/length") >= 1
