"""`kill -9` of the gateway process that holds a refresh lease, while requests wait for it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from akoya_gateway.grants import GrantRepository, GrantState
from tests.chaos.clients import fetch
from tests.chaos.conftest import FULL
from tests.chaos.killing import held, seeded, tally
from tests.chaos.replicas import Fleet, Visitor, age
from tests.support.waiting import until_async

KILLS = 120 if FULL else 12
WORKERS = 8
LEFT = 500.0
"""Seconds until the bearers expire: less than `refresh_before`, more than this test takes on the slowest machine."""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Fleet]:
    """One gateway with several worker processes, which restart quickly."""
    changes = {"tokens": {"refresh_before": "10m"}}
    with Fleet(tmp_path, 1, options=("--workers", str(WORKERS)), changes=changes) as fleet:
        yield fleet


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_killed_lease_holder_loses_no_grant(workers: Fleet) -> None:
    """Later requests get the valid token, and the grant's state is what is known about it."""
    random, seen = seeded(), []
    workers.akoya.fault("slow", "token.refresh_token", seconds=0.1, probability=0.5)
    workers.akoya.fault("slow_after", "token.refresh_token", seconds=0.1, probability=0.5)
    async with workers.book() as repository:
        for start in range(0, KILLS, BATCH):
            visitors = [await asyncio.to_thread(workers.visitor) for _ in range(min(BATCH, KILLS - start))]
            firsts = [held(await age(repository, visitor.grant, LEFT)) for visitor in visitors]
            killed_at = time.monotonic()
            for visitor in visitors:
                await kill_the_holder(workers, repository, visitor, random.uniform(0.0, 0.25))
            await asyncio.sleep(max(0.0, 11.0 - (time.monotonic() - killed_at)))  # leases expire
            for visitor, first in zip(visitors, firsts, strict=True):
                seen.append(await check_grant(workers, repository, visitor, first))
    print(f"{len(seen)} holders killed:", tally(seen))
    if FULL:  # twelve kills may happen to find the same point
        assert len(set(seen)) > 1, "all were killed at the same point"


BATCH = 24


async def kill_the_holder(workers: Fleet, repository: GrantRepository, visitor: Visitor, after: float) -> None:
    pending = asyncio.ensure_future(fetch(workers.port, visitor.cookie))
    holder = 0

    async def leased() -> bool:
        nonlocal holder
        grant = await repository.get(visitor.grant)
        assert grant is not None
        if grant.lease is not None:
            holder = int(grant.lease.holder.split(":")[1])
        return grant.lease is not None or pending.done()

    await until_async(leased, "a gateway refreshes")
    if holder:
        await asyncio.sleep(after)
        try:
            os.kill(holder, signal.SIGKILL)
        except ProcessLookupError:
            pytest.fail("the lease names a process that does not exist")
    await asyncio.gather(pending, return_exceptions=True)


async def check_grant(workers: Fleet, repository: GrantRepository, visitor: Visitor, first: str | None) -> str:
    responses = [await fetch_again(workers.port, visitor.cookie) for _ in range(2)]
    assert responses == [200, 200]
    grant = await repository.get(visitor.grant)
    assert grant is not None
    uses = [use for use in workers.refreshes() if use["grant_id"] == grant.tokens.consent_id]
    issued = [use["issued"] for use in uses if use["outcome"] == "issued"]
    assert [use["outcome"] for use in uses] == ["issued"] * len(uses), "a spent token was used again"
    assert visitor.state() == grant.state
    if not issued:
        assert held(grant) == first
        assert grant.state is GrantState.UNCERTAIN
        return "request did not arrive, uncertain"
    if held(grant) == issued[-1]:
        assert grant.state is GrantState.LIVE
        return "answer stored, live"
    assert held(grant) == first
    assert grant.state is GrantState.UNCERTAIN
    return "answer lost, uncertain"


async def fetch_again(port: int, cookie: str) -> int:
    """A browser repeats a GET whose connection was reset."""
    for _ in range(50):
        try:
            return (await fetch(port, cookie)).status
        except (EOFError, OSError):
            await asyncio.sleep(0.1)
    raise AssertionError("no response")
