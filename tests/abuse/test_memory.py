"""Untrusted requests must not fill the caches that speed up later requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw_http import Caller, Client, RawUpstream, forever
from tests.support.sidecar import Running

REQUESTS = 400
LONG = b"x" * 60_000
SENT = {
    "names": b"Host: a\r\nX-%d-%b: 1\r\n",
    "hosts": b"Host: a%d%b\r\n",
    "values": b"Host: a\r\nX-A: %d%b\r\n",
    "dropped": b"Host: a\r\nProxy: %d%b\r\n",
    "cookies": b"Host: a\r\nCookie: a=%d%b\r\n",
}


def resident(pid: int) -> int:
    """Return the resident set size in bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module", params=[(), ("--no-fast-lane",)], ids=["lane", "no lane"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    def respond(caller: Caller) -> None:
        if b"/slow " in upstream.heads[-1]:
            time.sleep(3)
        caller.respond()

    with RawUpstream(forever(respond)) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}"}}
        with Running(tmp_path_factory.mktemp("gateway"), *request.param, changes=changes) as run:
            yield run


@pytest.mark.parametrize("kind", SENT)
def test_distinct_large_requests_of_an_attacker_take_bounded_memory(running: Running, kind: str) -> None:
    with Client(running.port) as client:
        for number in range(REQUESTS):
            if number == 100:
                before = resident(running.pid)
            client.send(b"GET /public/x HTTP/1.1\r\n" + SENT[kind] % (number, LONG) + b"\r\n")
            client.response()
    assert resident(running.pid) - before < 10_000_000, "caching every request would take 300 x 60 KB"


def test_thousands_of_requests_behind_one_that_takes_long_are_not_begun(running: Running) -> None:
    before = resident(running.pid)
    with contextlib.ExitStack() as crowd:
        for _ in range(10):
            client = crowd.enter_context(Client(running.port, 1))
            client.send(b"GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.05)
            with contextlib.suppress(OSError):
                client.send(b"GET / HTTP/1.1\r\nHost:a\r\n\r\n" * 10_000)
        time.sleep(0.5)
        assert resident(running.pid) - before < 20_000_000


def test_concurrent_requests_all_get_a_response(running: Running) -> None:
    with Client(running.port) as client:
        client.send(b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n" * 60)
        assert [client.response().status for _ in range(60)] == [200] * 60


@pytest.mark.parametrize("target", [b"/public/x", b"/nowhere", b"/akoya/logout"])
@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"0\r\n", b"a: b\r\n" * 10_000), (b"0\r\nX: ", LONG), (b"1\r\na\r\n0\r\nX: ", LONG), (b"1;a=", LONG)],
    ids=["trailers", "a trailer", "a trailer behind a body", "an extension"],
)
def test_data_after_a_truncated_body_is_discarded(running: Running, target: bytes, begin: bytes, more: bytes) -> None:
    before = resident(running.pid)
    with Client(running.port) as client, pytest.raises(ConnectionError):
        client.send(b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + begin)
        for _ in range(300):
            client.send(more)
    assert resident(running.pid) - before < 10_000_000


def test_small_chunks_with_extensions_and_trailers_are_no_abuse(running: Running) -> None:
    with Client(running.port) as client:
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            client.send(b"1;name=" + b"v" * 100 + b"\r\na\r\n")
        client.send(b"0\r\n" + b"X-T: t\r\n" * 100 + b"\r\nGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [client.response().status for _ in range(2)] == [403, 200]
