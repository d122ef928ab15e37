"""Tests of the connection pool: limits, load balancing, retries, timeouts and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from akoya_gateway.config.model import Origin, Seconds, Upstream, UpstreamTLS
from akoya_gateway.upstream.errors import ClosedEarly, UpstreamUnreachable
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.response_stream import ResponseStream
from akoya_gateway.upstream.http.tls import client_context
from tests.support.certificates import Authority, server_context
from tests.support.ports import free_port
from tests.support.raw_http import Caller, Client, RawUpstream, fetch, forever, proxied
from tests.support.waiting import until, until_async


def responses(caller: Caller) -> None:
    caller.respond(b"%d" % caller.number)


def dies_on_second(caller: Caller) -> None:
    """Close the first connection at its second request. Later connections serve all requests."""
    caller.head()
    caller.respond(b"%d" % caller.number)
    while True:
        caller.head()
        if caller.number == 1:
            return
        caller.respond(b"%d" % caller.number)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    yield Authority(tmp_path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_idempotent_request_on_a_connection_that_was_just_closing_is_sent_again(method: str) -> None:
    with RawUpstream(dies_on_second) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[2] == b"1"
        status, _, _ = fetch(proxy.port, "/again", method=method)
        assert status == 200
        assert upstream.connections == 2
        assert sum(b"/again" in head for head in upstream.heads) == 2


@pytest.mark.parametrize(
    ("method", "body"),
    [("POST", None), ("POST", b"x"), ("PATCH", b"x"), ("PUT", b"x"), ("DELETE", b"x"), ("LOCK", None)],
)
def test_request_with_a_body_or_a_possible_effect_is_never_sent_twice(method: str, body: bytes | None) -> None:
    with RawUpstream(dies_on_second) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[2] == b"1"
        status, _, response = fetch(proxy.port, "/once", method=method, body=body)
        assert status == 502
        assert b"upstream-closed" in response
        assert sum(b"/once" in head for head in upstream.heads) == 1


def test_request_that_kills_two_connections_is_not_tried_a_third_time() -> None:
    def handler(caller: Caller) -> None:
        if caller.number == 1:
            caller.head()
            caller.respond()
        caller.head()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[0] == 200
        assert fetch(proxy.port, "/deadly")[0] == 502
        assert sum(b"/deadly" in head for head in upstream.heads) == 2


def reads_and_closes(caller: Caller) -> None:
    caller.head()


def test_request_that_kills_a_connection_made_for_it_is_not_sent_again() -> None:
    with RawUpstream(reads_and_closes) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port, "/deadly")[0] == 502
        assert sum(b"/deadly" in head for head in upstream.heads) == 1


def test_second_try_is_on_a_connection_made_for_it() -> None:
    """After an upstream restart, all idle connections are closed, not only the first."""
    together = threading.Barrier(3)

    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number <= 3:
            together.wait(60)
        caller.respond(b"%d" % caller.number)
        caller.head()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        threads = [threading.Thread(target=fetch, args=(proxy.port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        until(lambda: proxy.pool.idle == 3)
        assert fetch(proxy.port, "/again")[::2] == (200, b"4")


def test_client_that_leaves_while_its_request_waits_to_be_sent_again_is_noticed() -> None:
    fail, respond = threading.Event(), threading.Event()
    aborted: list[bool] = []

    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.respond()
            caller.head()
            fail.wait(60)
            return
        respond.wait(60)
        caller.respond()
        caller.head()
        aborted.append(caller.closed_by_peer())

    with RawUpstream(handler) as upstream, proxied(upstream.origin, read=600.0, pool=1) as proxy:
        assert fetch(proxy.port)[0] == 200
        leaving = Client(proxy.port)
        leaving.send(b"GET /again HTTP/1.1\r\nhost: a\r\n\r\n")
        until(lambda: len(upstream.heads) == 2)
        # Longer than a tick, so that the client is being watched when the first attempt fails.
        time.sleep(4 * proxy.pool.tick)
        other = threading.Thread(target=fetch, args=(proxy.port, "/other"))
        other.start()
        until(lambda: proxy.pool.waiting == 1)
        fail.set()
        until(lambda: len(upstream.heads) == 3)
        leaving.sock.close()
        time.sleep(0.5)
        respond.set()
        until(lambda: bool(aborted))
        other.join(60)
    assert aborted == [True]


def test_request_is_not_sent_again_once_a_byte_has_come_back() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.respond()
        caller.head()
        caller.send(b"H")

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[0] == 200
        assert fetch(proxy.port, "/once")[0] == 502
        assert sum(b"/once" in head for head in upstream.heads) == 1


def test_connection_the_upstream_has_closed_is_not_used() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.respond(b"%d" % caller.number)

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        for number in range(1, 4):
            assert fetch(proxy.port, method="POST") == (200, *fetch_ok(number))
            until(lambda: proxy.pool.size == 0)


def fetch_ok(number: int) -> tuple[dict[str, str], bytes]:
    body = b"%d" % number
    return {"content-length": str(len(body)), "via": "1.1 akoya-gateway"}, body


def test_limit_holds_and_the_others_wait_their_turn() -> None:
    lock = threading.Lock()
    now = most = 0

    def respond(caller: Caller) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        caller.respond()

    with (
        RawUpstream(forever(respond)) as upstream,
        proxied(upstream.origin, pool=3) as proxy,
        ThreadPoolExecutor(24) as many,
    ):
        results = list(many.map(lambda _: fetch(proxy.port)[0], range(72)))
        assert results == [200] * 72
        assert most <= 3
        assert upstream.connections <= 3
        assert proxy.pool.size <= 3
        assert proxy.pool.waiting == 0


async def test_waiter_that_leaves_just_as_its_turn_comes_gives_it_back() -> None:
    with RawUpstream(forever(responses)) as upstream:
        pool = ConnectionPool(Upstream((upstream.origin,), Seconds(30), Seconds(30), 1))
        first = await pool.acquire()
        waiting = asyncio.ensure_future(pool.acquire())
        while not pool.waiting:
            await asyncio.sleep(0)
        first.abort()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.size == 0
        assert (await asyncio.wait_for(pool.acquire(), 60)).usable
        await pool.close()


def test_wait_timeout_for_a_connection_gives_503_with_retry_after() -> None:
    gate = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        gate.wait(60)
        caller.respond()

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, read=60, pool=1, timeouts={"wait_timeout": 0.2}) as proxy,
        ThreadPoolExecutor(2) as many,
    ):
        first = many.submit(fetch, proxy.port)
        until(lambda: upstream.connections == 1)
        status, headers, body = fetch(proxy.port)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"upstream-busy" in body
        gate.set()
        assert first.result()[0] == 200


def test_waiter_that_leaves_gives_its_place_to_the_next() -> None:
    gate = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        gate.wait(60)
        caller.respond()
        while True:
            caller.head()
            caller.respond()

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, pool=1) as proxy,
        ThreadPoolExecutor(2) as many,
    ):
        first = many.submit(fetch, proxy.port)
        until(lambda: upstream.connections == 1)
        with Client(proxy.port) as leaving:
            leaving.send(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: proxy.pool.waiting == 1)
        last = many.submit(fetch, proxy.port, "/last")
        until(lambda: proxy.pool.waiting == 2)
        gate.set()
        assert first.result()[0] == last.result()[0] == 200
        assert upstream.connections == 1


def test_waiter_opens_a_connection_where_one_was_lost() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            time.sleep(0.3)
            return
        caller.respond()

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, pool=1) as proxy,
        ThreadPoolExecutor(2) as many,
    ):
        first = many.submit(fetch, proxy.port)
        until(lambda: upstream.connections == 1)
        assert fetch(proxy.port)[0] == 200
        assert first.result()[0] == 502


def test_idle_connections_are_closed_after_a_while() -> None:
    with (
        RawUpstream(forever(responses)) as upstream,
        proxied(upstream.origin, timeouts={"idle_timeout": 0.8}) as proxy,
    ):
        assert fetch(proxy.port)[2] == b"1"
        until(lambda: proxy.pool.size == 0)
        assert fetch(proxy.port)[2] == b"2"


def test_retired_pool_serves_its_holders_and_keeps_no_connection() -> None:
    gate = threading.Event()

    def respond(caller: Caller) -> None:
        gate.wait(60)
        caller.respond()

    with (
        RawUpstream(forever(respond)) as upstream,
        proxied(upstream.origin, pool=1) as proxy,
        ThreadPoolExecutor(2) as many,
    ):
        running, waiting = many.submit(fetch, proxy.port), many.submit(fetch, proxy.port)
        until(lambda: proxy.pool.waiting == 1)
        assert proxy.pool._loop is not None
        proxy.pool._loop.call_soon_threadsafe(proxy.pool.retire)
        proxy.pool._loop.call_soon_threadsafe(gate.set)
        assert running.result()[0] == waiting.result()[0] == 200
        until(lambda: proxy.pool.size == 0)


def test_closing_the_pool_cuts_what_runs_and_refuses_what_waits() -> None:
    import asyncio

    gate = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        gate.wait(60)

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, pool=1) as proxy,
        ThreadPoolExecutor(2) as many,
    ):
        running = many.submit(fetch, proxy.port)
        until(lambda: upstream.connections == 1)
        waiting = many.submit(fetch, proxy.port)
        until(lambda: proxy.pool.waiting == 1)
        assert proxy.pool._loop is not None
        asyncio.run_coroutine_threadsafe(proxy.pool.close(), proxy.pool._loop).result(60)
        assert running.result()[0] == 502
        assert waiting.result()[0] == 503
        assert fetch(proxy.port)[0] == 503
        gate.set()


def test_several_origins_take_turns() -> None:
    with RawUpstream(forever(responses)) as one, RawUpstream(forever(responses)) as two:
        with proxied(one.origin, two.origin) as proxy:
            for _ in range(10):
                assert fetch(proxy.port)[0] == 200
        assert len(one.heads) == len(two.heads) == 5


def test_origin_that_is_down_is_passed_over_even_for_post_and_comes_back() -> None:
    with RawUpstream(forever(responses)) as gone:
        down = gone.origin
    with RawUpstream(forever(responses)) as up, proxied(down, up.origin) as proxy:
        for _ in range(6):
            assert fetch(proxy.port, method="POST", body=b"x")[0] == 200
        assert len(up.heads) == 6
    assert len(gone.heads) == 0


def test_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    with (
        RawUpstream(forever(responses), path=str(tmp_path / "app.sock")) as upstream,
        proxied(upstream.origin) as proxy,
    ):
        assert [fetch(proxy.port)[0] for _ in range(3)] == [200] * 3
        assert upstream.connections == 1
        assert b"host: 127.0.0.1:%d\r\n" % proxy.port in upstream.heads[0]


def test_unix_socket_that_is_not_there_is_502(tmp_path: Path) -> None:
    from akoya_gateway.config.model import Origin

    with proxied(Origin("http", "localhost", 80, str(tmp_path / "none.sock"))) as proxy:
        assert fetch(proxy.port)[0] == 502


# -- TLS


def test_tls_upstream_under_a_private_authority(authority: Authority) -> None:
    tls = UpstreamTLS(ca=authority.file)
    with (
        RawUpstream(forever(responses), tls=server_context(authority)) as upstream,
        proxied(upstream.origin, tls=tls) as proxy,
    ):
        assert [fetch(proxy.port)[2] for _ in range(3)] == [b"1"] * 3
        assert fetch(proxy.port, method="POST", body=b"x" * 100_000)[0] == 200


def test_tls_upstream_by_another_name_is_named_by_server_name(authority: Authority) -> None:
    names: list[str | None] = []
    context = server_context(authority)
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    tls = UpstreamTLS(ca=authority.file, server_name="app.internal")
    with RawUpstream(forever(responses), tls=context) as upstream, proxied(upstream.origin, tls=tls) as proxy:
        assert fetch(proxy.port)[0] == 200
        assert names == ["app.internal"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("unknown_authority", b"issuer certificate"),
        ("wrong_name", b'no TLS with the upstream: Hostname mismatch"'),
        ("expired", b'no TLS with the upstream: certificate has expired"'),
    ],
)
def test_tls_upstream_that_cannot_be_verified_gets_no_request(
    authority: Authority, tmp_path: Path, fault: str, reason: bytes
) -> None:
    (tmp_path / "other").mkdir()
    ca = Authority(tmp_path / "other").file if fault == "unknown_authority" else authority.file
    name = "other.internal" if fault == "wrong_name" else None
    tls = UpstreamTLS(ca=ca, server_name=name)
    context = server_context(authority, expired=fault == "expired")
    with RawUpstream(forever(responses), tls=context) as upstream, proxied(upstream.origin, tls=tls) as proxy:
        status, _, body = fetch(proxy.port)
        assert status == 502
        assert b"upstream-unreachable" in body
        assert reason in body
        assert upstream.heads == []


def test_upstream_that_requests_a_client_certificate_gets_it(authority: Authority) -> None:
    certificate, key = authority.issue("gateway")
    context = server_context(authority, mutual=True)
    tls = UpstreamTLS(ca=authority.file, certificate=certificate, key=key)
    with RawUpstream(forever(responses), tls=context) as upstream:
        with proxied(upstream.origin, tls=tls) as proxy:
            assert fetch(proxy.port)[0] == 200
        with proxied(upstream.origin, tls=UpstreamTLS(ca=authority.file)) as proxy:
            assert fetch(proxy.port)[0] == 502


@pytest.mark.parametrize("farewell", [True, False], ids=["said goodbye", "was cut"])
def test_close_delimited_tls_response_is_complete_only_with_a_close_notify(
    authority: Authority, farewell: bool
) -> None:
    """Anyone on the network path can close a TCP connection. Only the upstream can close TLS (RFC 9112 section 9.8)."""

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        if farewell:
            caller.sock.unwrap()  # type: ignore[attr-defined]

    with (
        RawUpstream(handler, tls=server_context(authority)) as upstream,
        proxied(upstream.origin, tls=UpstreamTLS(ca=authority.file)) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.rest().endswith(b"0\r\n\r\n") is farewell
        until(lambda: proxy.pool.size == 0)


def test_plain_upstream_is_not_taken_for_a_tls_one(authority: Authority) -> None:
    with RawUpstream(forever(responses)) as upstream:
        origin = replace(upstream.origin, scheme="https")
        with proxied(origin, tls=UpstreamTLS(ca=authority.file), connect=1) as proxy:
            assert fetch(proxy.port)[0] in (502, 504)


def silent(caller: Caller) -> None:
    """Accept connections and send nothing, so that a TLS handshake never completes."""
    caller.closed_by_peer()


def test_failing_origin_is_ejected_and_no_request_waits_for_it(authority: Authority) -> None:
    with RawUpstream(silent) as bad, RawUpstream(forever(responses), tls=server_context(authority)) as good:
        origins = (replace(bad.origin, scheme="https"), good.origin)
        with proxied(*origins, tls=UpstreamTLS(ca=authority.file), connect=0.4) as proxy:
            assert [fetch(proxy.port)[0] for _ in range(6)] == [200] * 6
        assert bad.connections == 1


def hangs(caller: Caller) -> None:
    """Read requests and never respond."""
    caller.head()
    caller.closed_by_peer()


def hangs_up(caller: Caller) -> None:
    caller.head()


def talks_nonsense(caller: Caller) -> None:
    caller.head()
    caller.send(b"SSH-2.0-OpenSSH\r\n\r\n")


@pytest.mark.parametrize("bad", [hangs, hangs_up, talks_nonsense])
def test_origin_without_responses_is_ejected_after_three_requests(bad: Callable[[Caller], None]) -> None:
    with RawUpstream(bad) as sick, RawUpstream(forever(responses)) as good:
        with proxied(sick.origin, good.origin, read=0.3) as proxy:
            statuses = [fetch(proxy.port)[0] for _ in range(14)]
        assert sum(status != 200 for status in statuses) == 3
        assert statuses[-6:] == [200] * 6
        assert sick.connections == 3


async def test_origin_is_ejected_longer_each_time_until_it_responds_and_a_connect_is_no_response() -> None:
    sick = True

    def recovering(caller: Caller) -> None:
        caller.head()
        if not sick:
            caller.respond(b"well")

    with RawUpstream(recovering) as upstream:
        pool = ConnectionPool(Upstream((upstream.origin,), Seconds(30), Seconds(30), 1))
        host = pool._hosts[0]

        async def request() -> float:
            connection = await pool.acquire()
            stream = ResponseStream(asyncio.get_running_loop())
            stream.begin(connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.suppress(ClosedEarly):
                await stream.wait_head()
            return math.ceil(max(0.0, host.ejected_until - asyncio.get_running_loop().time()))

        assert [await request() for _ in range(5)] == [0, 0, 1, 2, 4]
        sick = False
        assert await request() == 0
        assert host.consecutive_failures == 0
        sick = True
        await until_async(lambda: pool.size == 0, "the pool has noticed that the connection is closed")
        assert [await request() for _ in range(3)] == [0, 0, 1]
        await pool.close()


def test_client_that_sends_its_body_too_slowly_is_not_held_against_an_origin() -> None:
    with RawUpstream(hangs) as upstream, proxied(upstream.origin, read=0.2) as proxy:
        for _ in range(3):
            with Client(proxy.port) as client:
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx")
                assert b" 408 " in client.rest()
        assert proxy.pool._hosts[0].consecutive_failures == 0


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx"


@contextlib.contextmanager
def sending(client: Client, piece: bytes) -> Iterator[None]:
    """Send an endless body, one piece every 20 ms."""
    enough = threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError):
            while not enough.wait(0.02):
                client.send(piece)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(60)


def reads_bodies(caller: Caller) -> None:
    """Respond to GET requests, and read the body of any other request as long as it arrives."""
    if caller.head().startswith(b"GET"):
        caller.respond(b"served")
    while caller.sock.recv(65536):
        pass


def test_body_that_trickles_may_take_its_time_and_gives_way_when_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("akoya_gateway.upstream.http.connection_pool._UPLOAD_GRACE", 0.5)
    with (
        RawUpstream(reads_bodies) as upstream,
        proxied(upstream.origin, pool=1) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(POST)
        with sending(client, b"x"):
            time.sleep(1.5)
            assert not client.closed(0.05)
            client.sock.settimeout(60)
            assert fetch(proxy.port)[2] == b"served"
            assert b" 408 " in client.rest()


def test_body_that_comes_fast_enough_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same applies to an upload that has only just begun."""
    monkeypatch.setattr("akoya_gateway.upstream.http.connection_pool._UPLOAD_GRACE", 0.5)
    with (
        RawUpstream(reads_bodies) as upstream,
        proxied(upstream.origin, pool=1, connect=1.5) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(POST)
        with sending(client, b"x" * 2000):
            assert fetch(proxy.port)[0] == 503
            assert not client.closed(0.05)


def test_of_two_bodies_that_trickle_one_gives_way_to_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload that is further behind is aborted."""
    monkeypatch.setattr("akoya_gateway.upstream.http.connection_pool._UPLOAD_GRACE", 0.5)
    with (
        RawUpstream(reads_bodies) as upstream,
        proxied(upstream.origin, pool=2) as proxy,
        Client(proxy.port) as older,
        Client(proxy.port) as newer,
    ):
        older.send(POST)
        time.sleep(1)
        newer.send(POST)
        with sending(older, b"x"), sending(newer, b"x"):
            time.sleep(1)
            assert fetch(proxy.port)[2] == b"served"
            assert b" 408 " in older.rest()
            assert not newer.closed(0.05)


async def test_origin_that_came_back_is_forgiven() -> None:
    origin = Origin("http", "127.0.0.1", free_port())
    pool = ConnectionPool(Upstream((origin,), Seconds(30), Seconds(30), 1))
    host = pool._hosts[0]
    rests = []
    for _ in range(3):
        with pytest.raises(UpstreamUnreachable):
            await pool.acquire()
        rests.append(math.ceil(host.ejected_until - asyncio.get_running_loop().time()))
    assert rests == [1, 2, 4]
    with socket.create_server(("127.0.0.1", origin.port)):
        (await pool.acquire()).abort()
        assert host.ejected_until == 0
    with pytest.raises(UpstreamUnreachable):
        await pool.acquire()
    assert math.ceil(host.ejected_until - asyncio.get_running_loop().time()) == 1
    await pool.close()


def test_connection_that_cannot_be_made_lets_the_next_try(authority: Authority) -> None:
    with RawUpstream(silent) as upstream, ThreadPoolExecutor(3) as many:
        origin, tls = replace(upstream.origin, scheme="https"), UpstreamTLS(ca=authority.file)
        with proxied(origin, tls=tls, connect=0.3, pool=1, timeouts={"wait_timeout": 60}) as proxy:
            assert list(many.map(lambda _: fetch(proxy.port)[0], range(3))) == [504] * 3


def test_no_tls_older_than_1_2() -> None:
    assert client_context(UpstreamTLS()).minimum_version >= ssl.TLSVersion.TLSv1_2


def test_peer_that_accepts_and_never_shakes_hands_is_504(authority: Authority) -> None:
    with RawUpstream(silent) as upstream:
        origin = replace(upstream.origin, scheme="https")
        with proxied(origin, tls=UpstreamTLS(ca=authority.file), connect=0.3) as proxy:
            assert fetch(proxy.port)[0] == 504
