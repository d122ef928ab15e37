"""The provider's keys: concurrent callers share one fetch, results are cached, a hostile endpoint is contained."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.provider.remote_keys import (
    DEFAULT_AGE,
    FORCED_REFRESH_INTERVAL,
    MAX_AGE,
    MAX_STALE,
    MIN_AGE,
    RETRY_EMPTY,
    RETRY_STALE,
    KeysUnavailable,
    RemoteKeySet,
    max_age,
)
from tests.support.oauth_values import NOW, ec_key, jwks, rsa_key
from tests.support.scripted_server import Received, Responder, Server, endless, in_turn, raw, reply, serve

OK = b"HTTP/1.1 200 OK\r\n"


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


def keys(*which: Any, cache: str = "max-age=600") -> Responder:
    return reply(200, jwks(*which), f"Cache-Control: {cache}\r\n")


def source(server: Server, http: httpx.AsyncClient, clock: Time, timeout: float = 30.0) -> RemoteKeySet:
    return RemoteKeySet(f"{server.url}/keys", http, clock, timeout=timeout)


async def test_keys_are_fetched_once_while_they_are_fresh(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=keys(rsa_key())) as server:
        keys_of = source(server, http, clock)
        assert server.received == []
        for _ in range(3):
            assert [key.kid for key in (await keys_of.current()).keys] == ["r1"]
        clock.now += 599
        await keys_of.current()
        assert len(server.received) == 1
        clock.now += 2
        await keys_of.current()
        assert len(server.received) == 2


async def test_keys_are_fetched_after_the_clock_was_set_back(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=in_turn(reply(500), keys(rsa_key()), keys(ec_key()))) as server:
        keys_of = source(server, http, clock)
        clock.now += 86_400
        with pytest.raises(KeysUnavailable):
            await keys_of.current()
        clock.now -= 86_400
        assert [key.kid for key in (await keys_of.current()).keys] == ["r1"]
        clock.now -= 10 * MAX_AGE
        assert [key.kid for key in (await keys_of.current()).keys] == ["e1"]


async def test_one_fetch_serves_all_waiters(http: httpx.AsyncClient, clock: Time) -> None:
    async def slowly(server: Server, request: Received, writer: asyncio.StreamWriter) -> bool | None:
        await asyncio.sleep(0.1)
        return await keys(rsa_key())(server, request, writer)

    async with serve(keys=slowly) as server:
        keys_of = source(server, http, clock)
        got = await asyncio.gather(*(keys_of.current() for _ in range(50)), *(keys_of.refresh() for _ in range(50)))
        assert len({id(each) for each in got}) == 1
        assert len(server.received) == 1


async def test_waiter_that_gives_up_leaves_the_others_their_fetch(http: httpx.AsyncClient, clock: Time) -> None:
    async def slowly(server: Server, request: Received, writer: asyncio.StreamWriter) -> bool | None:
        await asyncio.sleep(0.2)
        return await keys(rsa_key())(server, request, writer)

    async with serve(keys=slowly) as server:
        keys_of = source(server, http, clock)
        first = asyncio.create_task(keys_of.current())
        second = asyncio.create_task(keys_of.current())
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).keys
        assert first.cancelled() or first.cancelling()
        assert len(server.received) == 1


async def test_old_keys_serve_on_while_the_endpoint_fails_but_not_for_ever(
    http: httpx.AsyncClient, clock: Time
) -> None:
    async with serve(keys=in_turn(keys(rsa_key()), reply(500))) as server:
        keys_of = source(server, http, clock)
        first = await keys_of.current()
        clock.now += 601
        assert await keys_of.current() is first
        assert await keys_of.current() is first
        assert len(server.received) == 2  # the failure is cached for a while
        clock.now += RETRY_STALE + 1
        assert await keys_of.current() is first
        assert len(server.received) == 3
        clock.now += MAX_STALE
        with pytest.raises(KeysUnavailable, match="responded with 500"):
            await keys_of.current()


async def test_missing_keys_are_reported_and_retried_soon(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=in_turn(reply(503), keys(rsa_key()))) as server:
        keys_of = source(server, http, clock)
        for _ in range(5):
            with pytest.raises(KeysUnavailable, match="responded with 503"):
                await keys_of.current()
        assert len(server.received) == 1
        clock.now += RETRY_EMPTY
        assert (await keys_of.current()).keys


async def test_unknown_kid_fetches_at_once_but_not_again_and_again(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=in_turn(keys(rsa_key()), keys(rsa_key(), ec_key()))) as server:
        keys_of = source(server, http, clock)
        await keys_of.current()
        assert [key.kid for key in (await keys_of.refresh()).keys] == ["r1", "e1"]
        for _ in range(10):
            await keys_of.refresh()
        assert len(server.received) == 2
        clock.now += FORCED_REFRESH_INTERVAL
        await keys_of.refresh()
        assert len(server.received) == 3


async def test_failed_renewal_leaves_the_keys_at_hand(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=in_turn(keys(rsa_key()), raw())) as server:
        keys_of = source(server, http, clock)
        first = await keys_of.current()
        assert await keys_of.refresh() is first
    keys_of = source(server, http, clock)
    with pytest.raises(KeysUnavailable):
        await keys_of.refresh()


@pytest.mark.parametrize(
    "responder",
    [
        reply(302, b"", "Location: /keys\r\n"),
        endless(OK + b"Content-Length: 52428800\r\n\r\n", b" " * 65536),
        endless(OK + b"\r\n", b'{"keys":[],', 0),
        endless(OK + b"Content-Length: 500\r\n\r\n", b" ", 0.02),
        raw(hold=True),
        raw(OK + b"Content-Length: 100\r\n\r\n{"),
        reply(200, b"<html>"),
        reply(200, {"keys": [{}] * 65}),
        reply(200, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}),
        reply(200, b'{"keys":' + b"[" * 60_000),
    ],
    ids=[
        "redirects to itself",
        "50 MB",
        "no end",
        "drips",
        "never answers",
        "cut",
        "HTML",
        "65 keys",
        "secrets",
        "deep",
    ],
)
async def test_hostile_endpoint_costs_one_bounded_request(
    http: httpx.AsyncClient, clock: Time, responder: Responder
) -> None:
    async with serve(keys=responder) as server, asyncio.timeout(60):
        with pytest.raises(KeysUnavailable):
            await source(server, http, clock, timeout=0.5).current()
        assert len(server.received) == 1


async def test_closing_ends_a_fetch_in_flight(http: httpx.AsyncClient, clock: Time) -> None:
    async with serve(keys=raw(hold=True)) as server:
        keys_of = source(server, http, clock, timeout=30)
        waiting = asyncio.create_task(keys_of.current())
        while not server.received:
            await asyncio.sleep(0.01)
        await keys_of.close()
        with pytest.raises(KeysUnavailable):
            await asyncio.wait_for(waiting, 60)


@pytest.mark.parametrize(
    "uri",
    ["http://keys.example/jwks", "http://10.0.0.1/k", "http://localhost.evil.example/k", "file:///etc/passwd",
     "ftp://x/k", "https://", "//x/k", "", "http://127.0.0.1.evil.example/", "data:application/json,{}"],
)  # fmt: skip
async def test_keys_come_over_https_or_from_this_machine(http: httpx.AsyncClient, clock: Time, uri: str) -> None:
    with pytest.raises(ValueError, match="https"):
        RemoteKeySet(uri, http, clock)


@pytest.mark.parametrize("uri", ["https://x.example/k", "http://localhost:1/k", "http://127.8.8.8/k", "http://[::1]/k"])
async def test_safe_addresses_are_taken(http: httpx.AsyncClient, clock: Time, uri: str) -> None:
    assert RemoteKeySet(uri, http, clock).timeout == 5.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", DEFAULT_AGE),
        ("max-age=600", 600.0),
        ("public, MAX-AGE=600, must-revalidate", 600.0),
        ('max-age="600"', 600.0),
        ("s-maxage=9000", DEFAULT_AGE),
        ("max-age=0", MIN_AGE),
        ("max-age=999999999", MAX_AGE),
        ("max-age=" + "9" * 400, DEFAULT_AGE),
        ("max-age=-5", DEFAULT_AGE),
        ("no-store, max-age=600", MIN_AGE),
        ("no-cache", MIN_AGE),
    ],
)
def test_age_follows_cache_control_within_bounds(value: str, seconds: float) -> None:
    assert max_age(value) == seconds


@given(st.text(max_size=60))
def test_any_cache_control_gives_a_sane_age(value: str) -> None:
    assert MIN_AGE <= max_age(value) <= MAX_AGE
