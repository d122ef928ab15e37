"""Tests that a cached result is used only for equal bytes, and that what it depends on is checked on every request.

They attack the caches of the fast lane: `fast_lane.request_cache`, `admission.decision_cache` and
`upstream.http.response_head_cache`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.fast_lane.exchanges import DATE, OK, SCRIPTS, patient, settled
from tests.support.environment import Browser, GatewayEnv
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess
from tests.support.raw_http import Client
from tests.support.scripted_upstream import Script, ScriptedUpstream, plain

HEADERS = b"Host: app.example.com\r\nAccept: */*\r\n"


def get(path: bytes, cookies: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HEADERS + more + cookies + b"\r\n"


def received(env: GatewayEnv) -> list[bytes]:
    upstream: ScriptedUpstream = env.upstream
    return upstream.heads


def differing(*responses: bytes) -> Script:
    """Return a script that sends the responses in turn."""

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(responses[next(turns) % len(responses)])

    turns = count()
    return script


MORE: dict[str, Script] = {
    # The head is the same each time, but the body differs.
    "bodies": differing(OK + DATE + b"Content-Length: 5\r\n\r\nfirst", OK + DATE + b"Content-Length: 5\r\n\r\nother"),
    "glued": differing(
        OK + DATE + b"Content-Length: 2\r\nX-G: 1\r\n\r\nok",
        OK + DATE + b"Content-Length: 2\r\nX-G: 1\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil",
    ),
    "short": differing(
        OK + DATE + b"Content-Length: 4\r\nX-S: 1\r\n\r\nfull", OK + DATE + b"Content-Length: 4\r\nX-S: 1\r\n\r\nfu"
    ),
    # Responds as soon as it has the head, even if the body has not arrived.
    "early": plain(OK + DATE + b"Content-Length: 5\r\n\r\nearly"),
    "tokens": differing(OK + DATE + b"Akoya-Id-Token: leaked\r\nContent-Length: 2\r\n\r\nok"),
    "rejected": differing(b"HTTP/1.1 401 Unauthorized\r\n" + DATE + b"Content-Length: 0\r\n\r\n"),
}


@pytest.fixture(scope="module", params=["sidecar", "app"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayEnv, GatewayProcess]]:
    upstream = ScriptedUpstream(SCRIPTS | MORE, early={"early"})
    changes: dict[str, Any] = {
        **patient(upstream.url),
        "sessions": {
            "store": f"sqlite://{tmp_path_factory.mktemp('store')}/grants.db",
            "keys": [{"env": "AKOYA_GATEWAY_KEY"}],
        },
    }
    folder = tmp_path_factory.mktemp("env")
    with GatewayEnv(
        folder, upstream=upstream, entrypoint=request.param, changes=changes, algorithm="hmac-sha256"
    ) as env:
        config = {**env.config(), "listen": f"127.0.0.1:{free_port()}", "admin": None}
        folder = tmp_path_factory.mktemp("plain")
        with GatewayProcess(folder, config, env.environ, "--no-fast-lane") as plain_gateway:
            yield env, plain_gateway


@pytest.fixture
def env(both: tuple[GatewayEnv, GatewayProcess]) -> GatewayEnv:
    return both[0]


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with Browser(env) as browser:
        browser.connect()
        yield browser


@pytest.mark.parametrize("name", [n for n in {**SCRIPTS, **MORE} if n not in ("silent", "rejected", "glued", "short")])
def test_third_time_is_as_the_first_on_both_paths(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser, name: str
) -> None:
    """All requests use one connection, so that everything that can be cached is."""
    env, plain_gateway = both
    request = get(b"/accounts/" + name.encode() + b"?a=b", browser.cookie_header())
    seen: dict[str, list[Any]] = {}
    for which, port in (("lane", env.port), ("asgi", plain_gateway.port)):
        received(env).clear()
        responses: list[Any] = []
        with Client(port) as client:
            for _ in range(4):
                try:
                    response = client.request(request)
                except (EOFError, ConnectionError):
                    responses.append("closed")
                    break
                responses.append((response.status, settled(response.head), settled(response.body)))
        seen[which] = [responses, {settled(one) for one in received(env)}]
    assert seen["lane"] == seen["asgi"]


def test_bytes_of_a_body_that_look_like_a_known_request_stay_a_body(env: GatewayEnv, browser: Browser) -> None:
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(known).status == 200
        received(env).clear()
        head = b"POST /accounts/length HTTP/1.1\r\n" + HEADERS + browser.cookie_header()
        client.send(head + b"Content-Length: %d\r\n\r\n" % (2 * len(known)))
        for _ in range(2):
            # Each piece arrives alone, as a request would.
            time.sleep(0.1)
            client.send(known)
        assert client.response().status == 200
        assert env.upstream.bodies[-1] == 2 * known
        # The connection then takes the next request, in this case a cached one.
        assert client.request(known).body == b"hello"
    assert [one.split(b" ")[0] for one in received(env)] == [b"POST", b"GET"]


def test_bytes_after_an_early_response_still_belong_to_the_body(env: GatewayEnv, browser: Browser) -> None:
    """The response is complete but the request is not, so the connection must not parse the rest as a request."""
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(known).status == 200
        received(env).clear()
        head = b"POST /accounts/early HTTP/1.1\r\n" + HEADERS + browser.cookie_header()
        client.send(head + b"Content-Length: %d\r\n\r\n" % (10 + 3 * len(known)) + b"0123456789")
        assert client.response().body == b"early"
        with Client(env.port) as other:
            # A cached decision is valid for a second. This request renews it.
            other.request(known)
            received(env).clear()
            client.send(known)
            time.sleep(0.1)
            assert received(env) == []
            assert other.request(known).status == 200


def test_known_request_in_two_pieces_or_behind_another_is_one_request(env: GatewayEnv, browser: Browser) -> None:
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            client.request(known)
        received(env).clear()
        for cut in (1, 20, len(known) - 2):
            client.send(known[:cut])
            client.send(known[cut:])
            assert client.response().body == b"hello"
        client.send(known + known)
        assert [client.response().body, client.response().body] == [b"hello", b"hello"]
        client.send(b"\r\n" + known)
        assert client.response().body == b"hello"
    assert len(received(env)) == 6


@pytest.mark.parametrize(
    "written",
    [
        b"GET /accounts/length HTTP/1.1\nHost: app.example.com\r\nX-A: 1\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\nX-Secret: 1\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nX-A: 1\r\n folded\r\nHost: app.example.com\r\n\r\n",
        b"GET  /accounts/length HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n",
        b"GET /accounts/length HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 0\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"GET /accounts/length HTTP/1.1\r\nHost: app.example.com\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_unusual_head_is_parsed_each_time(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser, written: bytes
) -> None:
    """Each repetition gets the same result as the first request, and the ASGI path gives the same result."""
    env, plain_gateway = both
    line, _, rest = written.partition(b" HTTP/")
    request = line + b" HTTP/" + rest.replace(b"Host:", browser.cookie_header() + b"Host:", 1)
    seen = []
    for port in (env.port, plain_gateway.port, env.port):
        received(env).clear()
        responses: list[Any] = []
        for _ in range(3):
            with Client(port) as client:
                for _ in range(2):
                    try:
                        response = client.request(request)
                    except (EOFError, ConnectionError):
                        responses.append("closed")
                        break
                    # uvicorn words its own refusals differently.
                    own = env.entrypoint == "app" and response.status == 400
                    responses.append((response.status, b"" if own else settled(response.head)))
        seen.append((responses, {settled(one) for one in received(env)}))
    assert seen[0] == seen[1] == seen[2]


def test_line_known_with_one_sender_gives_another_nothing(env: GatewayEnv, browser: Browser) -> None:
    known = get(b"/accounts/length", browser.cookie_header())
    unknown = get(b"/accounts/length", b"Cookie: akoya=" + b"A" * 43 + b"\r\n")
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(known).status == 200
        assert client.request(unknown).status == 401
        assert client.request(get(b"/accounts/length", b"")).status == 401
        assert client.request(known).status == 200
        assert client.request(get(b"/nowhere", browser.cookie_header())).status == 403


def test_two_owners_on_one_connection_get_their_own_tokens(env: GatewayEnv) -> None:
    """This is what happens behind a load balancer that puts requests of all users on the same connections."""
    with Browser(env) as one, Browser(env) as two, Client(env.port) as client:
        one.connect(user="mikomo_1")
        two.connect(user="mikomo_4")
        received(env).clear()
        for _ in range(4):
            for browser in (one, two):
                assert client.request(get(b"/accounts/length", browser.cookie_header())).status == 200
    lines = [line for request in received(env) for line in request.split(b"\r\n")]
    owners = [line for line in lines if line.startswith(b"akoya-owner: ")]
    assert len(set(owners)) == 2
    assert owners == owners[:2] * 4


def test_logout_invalidates_cached_decisions_immediately(env: GatewayEnv, browser: Browser) -> None:
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(known).status == 200
        csrf = browser.connections()["csrf"]
        assert browser.http.post("/akoya/logout", data={"csrf": csrf}, headers={"origin": env.url}).status_code == 303
        assert client.request(known).status == 401


def test_renewed_session_invalidates_the_old_id_at_once(env: GatewayEnv, browser: Browser) -> None:
    """The owner and the grants continue under a new session ID. The decision cached for the old ID must not."""
    old = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(old).status == 200
        browser.connect("other")
        assert client.request(old).status == 401
        assert client.request(get(b"/accounts/length", browser.cookie_header())).status == 200


def test_disconnect_invalidates_cached_decisions_immediately(env: GatewayEnv, browser: Browser) -> None:
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(known).status == 200
        csrf = browser.connections()["csrf"]
        done = browser.http.post("/akoya/disconnect/mikomo", data={"csrf": csrf}, headers={"origin": env.url})
        assert done.status_code == 303
        assert client.request(known).status == 401


@pytest.mark.parametrize("path", ["/akoya/logout", "/akoya/disconnect/mikomo"])
def test_session_ended_by_another_process_is_accepted_for_at_most_a_second(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser, path: str
) -> None:
    env, elsewhere = both
    known = get(b"/accounts/length", browser.cookie_header())
    with Client(env.port) as client:
        csrf = browser.connections()["csrf"]
        # Keep the cached decision in use, because every request refreshes its entries.
        for _ in range(30):
            assert client.request(known).status == 200
            time.sleep(0.02)
        there = f"http://127.0.0.1:{elsewhere.port}{path}"
        assert browser.http.post(there, data={"csrf": csrf}, headers={"origin": env.url}).status_code == 303
        # `tests/admission` checks the second itself, with a clock of its own.
        deadline = time.monotonic() + 30
        statuses: list[int] = []
        while statuses[-50:] != [401] * 50 and time.monotonic() < deadline:
            statuses.append(client.request(known).status)
            time.sleep(0.02)
    assert statuses == sorted(statuses), "status 200 after a 401"
    assert statuses[-50:] == [401] * 50


def test_log_is_the_same_on_both_paths(both: tuple[GatewayEnv, GatewayProcess], browser: Browser) -> None:
    """The lines are equal except for time, duration and the request ID, which an untrusted client cannot choose."""
    env, plain_gateway = both
    if env.entrypoint == "app":
        pytest.skip("the access log belongs to the server there")
    cookies = browser.cookie_header()
    requests = [
        get(b"/accounts/log/" + name + b"?secret=1", cookies)
        for name in (b"length", b"chunked", b"no-content", b"server-error")
    ]
    requests += [get(b"/accounts/log/length", b""), get(b"/nowhere/log/", cookies), get(b"/public/log/length", b"")]
    requests += [
        get(b"/accounts/log/garbage", cookies),
        get(b"/accounts/log/nothing", cookies),
        get(b"/accounts/log/length", cookies, b"X-Request-Id: chosen\r\n"),
    ]
    requests += [each.replace(b"GET", b"DELETE", 1) for each in requests]
    logged = {}
    for which, port, log in (("lane", env.port, env.gateway.log), ("asgi", plain_gateway.port, plain_gateway.log)):
        before = len(complete_lines(log).splitlines())
        for request in requests:
            for _ in range(3):
                with Client(port) as client:
                    client.request(get(b"/public/log/length", b""))
                    client.request(request)
        logged[which] = lines_of(log, before, 6 * len(requests))
    assert logged["lane"] == logged["asgi"]


def lines_of(log: Path, before: int, count: int) -> list[dict[str, Any]]:
    """Wait for the log, which is written after the responses: it may still get lines of the requests of other tests."""
    deadline = time.monotonic() + 30
    while True:
        lines = [json.loads(line) for line in complete_lines(log).splitlines()[before:]]
        requests = [line for line in lines if line["event"] == "request" and "/log/" in line["path"]]
        if len(requests) >= count or time.monotonic() > deadline:
            break
    names = {line.pop("request_id") for line in requests}
    assert len(names) == len(requests) == count
    assert "chosen" not in names
    for line in requests:
        del line["timestamp"], line["duration_ms"]
    return requests


def test_known_head_with_another_body_behind_it_is_parsed(env: GatewayEnv, browser: Browser) -> None:
    """A second response to one request closes the connection, and no client receives it."""
    request = get(b"/accounts/glued", browser.cookie_header())
    with Client(env.port) as client:
        for _ in range(8):
            assert client.request(request).body == b"ok"
    with Client(env.port) as client:
        for _ in range(8):
            assert b"evil" not in client.request(get(b"/accounts/length", browser.cookie_header())).body


def test_known_head_with_too_little_behind_it_waits_for_the_rest(env: GatewayEnv, browser: Browser) -> None:
    request = get(b"/accounts/short", browser.cookie_header())
    with Client(env.port) as client:
        assert client.request(request).body == b"full"
        client.send(request)
        with pytest.raises((EOFError, ConnectionError)):
            # The upstream's read timeout closes the connection: a truncated response must not look complete.
            client.response()


def test_head_response_is_not_taken_for_a_get_response(env: GatewayEnv, browser: Browser) -> None:
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(get(b"/accounts/empty", browser.cookie_header())).status == 200
            client.send(get(b"/accounts/empty", browser.cookie_header()).replace(b"GET", b"HEAD", 1))
            assert client.response().status == 200
            assert client.request(get(b"/accounts/bodies", browser.cookie_header())).body in (b"first", b"other")


@pytest.mark.parametrize("name", ["garbage", "nothing", "silent", "two-lengths"])
def test_failure_of_the_first_request_of_a_connection_is_reported(env: GatewayEnv, browser: Browser, name: str) -> None:
    """This covers a connection whose parser has not been fed any byte yet."""
    with Client(env.port) as client:
        for _ in range(3):
            assert client.request(get(b"/accounts/length", browser.cookie_header())).status == 200
    with Client(env.port) as client:
        response = client.request(get(b"/accounts/" + name.encode(), browser.cookie_header()))
        assert (response.status, b"upstream-" in response.body) == (504 if name == "silent" else 502, True)
