"""Waiting for a turn, in virtual time: several processes that share a store, fairness, priorities and limits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import EncryptionKey
from akoya_gateway.data_api.budget import MAX_WAITING, Budget
from akoya_gateway.data_api.errors import TooManyCalls
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import EncryptedStore, open_store
from akoya_gateway.store.base import Record
from akoya_gateway.store.encryption import Keyring
from akoya_gateway.store.memory import MemoryStore
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.virtual_time import clock, in_virtual_time

__all__ = ["redis_server"]

KEYS = Keyring((EncryptionKey("k", bytes(32)),))


class CountingStore(MemoryStore):
    """A store that counts writes, takes time for each, and can be down."""

    def __init__(self) -> None:
        super().__init__(clock)
        self.writes = 0
        self.is_down = False

    async def put(self, record: Record) -> bool:
        self.writes += 1
        await asyncio.sleep(0.002)
        if self.is_down:
            raise StoreUnavailable("down")
        return await super().put(record)


def budgets(store: Any, rate: float, count: int = 1, now: Any = clock) -> list[Budget]:
    numbers = itertools.cycle((0.1, 0.9, 0.5, 0.3))
    return [Budget("e", rate, EncryptedStore(store, KEYS), now, lambda: next(numbers)) for _ in range(count)]


async def send_all(budget: Budget, calls: list[tuple[str, bool]]) -> list[tuple[float, str, bool]]:
    """Acquire all, trying again after 429 as a client does. Return when each was sent, with its owner and kind."""
    sent: list[tuple[float, str, bool]] = []

    async def one(owner: str, is_background: bool) -> None:
        while True:
            try:
                await budget.acquire(owner, is_background=is_background)
            except TooManyCalls as error:
                assert error.retry_after is not None
                await asyncio.sleep(error.retry_after)
                continue
            sent.append((clock(), owner, is_background))
            return

    await asyncio.gather(*(one(*call) for call in calls))
    return sent


def busiest_second(sent: list[tuple[float, str, bool]]) -> int:
    times = sorted(one[0] for one in sent)
    return max(sum(1 for other in times if at <= other < at + 1.0) for at in times)


@in_virtual_time
async def test_replicas_share_one_budget_and_interactive_calls_are_first() -> None:
    """Three processes, each with calls of users and of jobs. `test_replicas.py` has the same with real ones."""
    store = CountingStore()
    replicas = budgets(store, 100.0, 3)
    jobs = [[(f"job{number % 7}", True) for number in range(200)] for _ in replicas]
    users = [[(f"user{number % 50}", False) for number in range(60)] for _ in replicas]
    background = [asyncio.create_task(send_all(budget, calls)) for budget, calls in zip(replicas, jobs, strict=True)]
    await asyncio.sleep(0.5)
    began = clock()
    interactive = await asyncio.gather(*map(send_all, replicas, users))
    took = clock() - began
    rest = await asyncio.gather(*background)
    everything = [one for sent in (*interactive, *rest) for one in sent]
    assert len(everything) == 3 * (60 + 200)
    assert busiest_second(everything) <= 100
    # 180 calls at 100 a second. Beside four fifths for the jobs they would take 9 seconds.
    assert took < 3.0
    assert [one for sent in rest for one in sent if began + 0.1 < one[0] < began + took] == []


@in_virtual_time
async def test_store_is_read_at_most_once_a_tick_for_any_number_of_waiters() -> None:
    store = CountingStore()
    (budget,) = budgets(store, 1000.0)
    sent = await send_all(budget, [("a", False)] * 100)
    assert len(sent) == 100
    assert store.writes <= 3


@in_virtual_time
async def test_owners_take_turns() -> None:
    (budget,) = budgets(MemoryStore(clock), 5.0)
    sent = await send_all(budget, [("many", False)] * 30 + [("few", False)] * 3)
    # The first five went before the others came; then the two alternate.
    assert Counter(owner for _, owner, _ in sent[:11])["few"] == 3


@in_virtual_time
async def test_call_beyond_the_waiting_ones_is_refused_and_interactive_takes_the_place_of_background() -> None:
    (budget,) = budgets(MemoryStore(clock), 1.0)
    await budget.acquire("job", is_background=True)
    jobs = [asyncio.create_task(budget.acquire("job", is_background=True)) for _ in range(MAX_WAITING + 1)]
    await asyncio.sleep(0.01)
    assert isinstance(jobs[-1].exception(), TooManyCalls)
    user = asyncio.create_task(budget.acquire("user", is_background=False))
    await asyncio.sleep(0.01)
    displaced = [job for job in jobs[:-1] if job.done() and job.exception() is not None]
    assert len(displaced) == 1
    error = displaced[0].exception()
    assert isinstance(error, TooManyCalls)
    assert (error.retry_after or 0) > 50
    await user
    assert budget.waiting <= MAX_WAITING
    await budget.close()
    assert all(job.done() for job in jobs) or await asyncio.wait(jobs)
    assert budget.waiting == 0


@in_virtual_time
async def test_owner_that_takes_all_places_gives_way_to_others_up_to_an_equal_share() -> None:
    (budget,) = budgets(MemoryStore(clock), 1.0)
    await budget.acquire("first", is_background=False)
    many = [asyncio.create_task(budget.acquire("many", is_background=False)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0.01)
    few = [asyncio.create_task(budget.acquire("few", is_background=False)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0.01)
    refused = [[isinstance(call.done() and call.exception(), TooManyCalls) for call in calls] for calls in (many, few)]
    half = MAX_WAITING // 2
    assert refused == [[False] * half + [True] * half] * 2
    await few[0]
    await budget.close()
    await asyncio.wait([*many, *few])
    assert all(call.exception() is not None for call in few[-half:])


@in_virtual_time
async def test_call_that_is_cancelled_no_longer_waits() -> None:
    (budget,) = budgets(MemoryStore(clock), 1.0)
    await budget.acquire("a", is_background=False)
    waiting = [asyncio.create_task(budget.acquire("a", is_background=False)) for _ in range(3)]
    await asyncio.sleep(0.1)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert budget.waiting == 2
    await asyncio.gather(*waiting[1:])
    assert clock() - 1_800_000_000.0 < 2.6


@in_virtual_time
async def test_pause_after_akoyas_own_limit_holds_all_calls() -> None:
    (budget,) = budgets(MemoryStore(clock), 100.0)
    budget.pause(3.0)
    began = clock()
    await budget.acquire("a", is_background=False)
    assert clock() - began >= 3.0


@in_virtual_time
async def test_call_that_comes_too_late_acquires_again_and_calls_are_reserved_for_the_delay_from_then_on() -> None:
    (budget,) = budgets(MemoryStore(clock), 5.0)

    async def arrives_in_time(seconds: float) -> bool:
        turn = await budget.acquire("a", is_background=False)
        await asyncio.sleep(seconds)
        return budget.may_still_send(turn)

    assert await arrives_in_time(0.04)
    assert not await arrives_in_time(0.4)
    assert await arrives_in_time(0.4)
    # After 10 seconds without a late call it is a tick less, and so on.
    for _ in range(12):
        await asyncio.sleep(11)
        assert await arrives_in_time(0.04)
    assert not await arrives_in_time(0.4)


@in_virtual_time
async def test_calls_that_one_pause_makes_late_increase_the_delay_once() -> None:
    (budget,) = budgets(MemoryStore(clock), 100.0)

    async def late_calls(seconds: float) -> list[bool]:
        turns = [await budget.acquire("a", is_background=False) for _ in range(20)]
        await asyncio.sleep(seconds)
        return [budget.may_still_send(turn) for turn in turns]

    # All of them are refused: none is sent late because the delay has reached its maximum.
    assert await late_calls(0.3) == [False] * 20
    # The new delay is enough for such a pause, but not the longest.
    assert await late_calls(0.2) == [True] * 20
    assert await late_calls(1.5) == [False] * 20


@in_virtual_time
async def test_calls_whose_connections_always_take_too_long_are_sent() -> None:
    (budget,) = budgets(MemoryStore(clock), 5.0)
    results: list[bool] = []
    while True not in results:
        turn = await budget.acquire("a", is_background=False)
        await asyncio.sleep(5.0)
        results.append(budget.may_still_send(turn))
    assert results == [False, True]


@in_virtual_time
async def test_slow_processes_stay_within_the_budget() -> None:
    """Three processes that send each call up to half a second late."""
    replicas = budgets(CountingStore(), 50.0, 3)
    sent: list[tuple[float, str, bool]] = []
    delays = itertools.cycle((0.01, 0.5, 0.2, 0.0, 0.35))

    async def call(budget: Budget) -> None:
        while True:
            turn = await budget.acquire("a", is_background=False)
            await asyncio.sleep(next(delays))
            if budget.may_still_send(turn):
                sent.append((clock(), "a", False))
                return

    await asyncio.gather(*(call(budget) for budget in replicas for _ in range(90)))
    assert len(sent) == 270
    assert busiest_second(sent) <= 50
    # At 50 a second, and with reservations for half a second more.
    assert max(sent)[0] - min(sent)[0] < 15


@in_virtual_time
async def test_process_counts_its_own_calls_while_the_store_is_down() -> None:
    store = CountingStore()
    (budget,) = budgets(store, 5.0)
    store.is_down = True
    sent = await send_all(budget, [("a", False)] * 20)
    assert busiest_second(sent) <= 5
    store.is_down = False
    sent += await send_all(budget, [("a", False)] * 10)
    assert busiest_second(sent) <= 5
    assert await store.get("data_rate", "e") is not None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_budget_is_shared_in_every_kind_of_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two processes, each with its own connection, and a clock that stands still: together they get the rate once."""
    server: RedisServer | None = request.getfixturevalue("redis_server") if kind == "redis" else None
    url = f"sqlite://{tmp_path}/s.db" if server is None else f"{server.url}?prefix=budget&timeout=20"
    at = time.time()
    stores = [open_store(url) for _ in range(2)]
    for store in stores:
        await store.open()
    try:
        found = [budgets(store, 5.0, now=lambda: at)[0] for store in stores]
        tasks = [asyncio.create_task(one.acquire("a", is_background=False)) for one in found for _ in range(5)]
        async with asyncio.timeout(30):
            while sum(task.done() for task in tasks) < 5:
                await asyncio.sleep(0.01)
        # Both have tried often enough when each has found the other's record at least once.
        await asyncio.sleep(0.3)
        assert sum(task.done() for task in tasks) == 5
        for one in found:
            await one.close()
        await asyncio.wait(tasks)
    finally:
        for store in stores:
            await store.close()
