"""A failing store causes a 503 and never a logout: cookies stay, nothing passes without a token, service recovers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from akoya_gateway.grants import GrantRepository, GrantState
from tests.chaos.clients import Load, Response, fetch, load
from tests.chaos.replicas import CACHES, Fleet, Visitor, age, readyz
from tests.support.redis_servers import Cluster, RedisServer, SentinelGroup
from tests.support.waiting import until_async

GOOD = {200}


async def trouble(fleet: Fleet, seen: Load, begin: Callable[[], object], end: Callable[[], object]) -> None:
    """Check an outage under load: 200, then 503, then 200 again, and no other status."""
    await until_async(lambda: responded(seen, GOOD), "all requests succeed")
    mark = seen.mark()
    await asyncio.to_thread(begin)
    await until_async(lambda: responded(seen, {503}, since=mark), "the outage shows")
    await asyncio.sleep(CACHES)
    sick = seen.mark()
    await until_async(lambda: readyz_returns(fleet, 503), "/readyz reports failure")
    problems = str((await asyncio.to_thread(readyz, fleet))[1])
    assert "store" in problems, problems
    await until_async(lambda: responded(seen, {503}, since=sick), "no request is served")
    await asyncio.to_thread(end)
    await until_async(lambda: recovered(seen), "the service has recovered by itself")
    await until_async(lambda: readyz_returns(fleet, 200), "/readyz reports success")
    for response in seen.since(mark):
        check_status(response)
    assert seen.lost == 0, seen.faults


async def responded(seen: Load, statuses: set[int], since: int = 0) -> bool:
    return statuses <= seen.statuses(since)


async def readyz_returns(fleet: Fleet, status: int) -> bool:
    return (await asyncio.to_thread(readyz, fleet))[0] == status


async def recovered(seen: Load) -> bool:
    """Return whether the last hundred responses were good."""
    return seen.statuses(max(seen.mark() - 100, 0)) == GOOD


def check_status(response: Response) -> None:
    assert response.status in (200, 503), response
    assert response.header("set-cookie") is None, response
    if response.status == 503:
        assert int(response.header("retry-after") or 0) > 0
        assert b"store" in response.body, response.body
    else:
        assert response.token.count(".") == 2, "admitted without a token"


async def one_refresh(fleet: Fleet, repository: GrantRepository, visitor: Visitor) -> None:
    """Check that the grant is intact: it can be refreshed, with one use of its token."""
    before = len(fleet.refreshes())
    await age(repository, visitor.grant, left=-1.0)
    await asyncio.sleep(CACHES)
    assert (await fetch(fleet.port, visitor.cookie)).status == 200
    assert [use["outcome"] for use in fleet.refreshes()[before:]] == ["issued"]


async def stored(repository: GrantRepository, visitor: Visitor) -> GrantState:
    grant = await repository.get(visitor.grant)
    assert grant is not None
    return grant.state


@pytest.fixture
def on_redis(own_redis: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, 2, store=own_redis.url) as fleet:
        yield fleet


async def test_redis_killed_and_paused_under_load(on_redis: Fleet, own_redis: RedisServer) -> None:
    visitors = [on_redis.visitor(), on_redis.visitor("mikomo_4")]
    async with load(on_redis.ports, [visitor.cookie for visitor in visitors]) as seen:
        await trouble(on_redis, seen, own_redis.kill, own_redis.start)
        await trouble(on_redis, seen, own_redis.pause, own_redis.resume)
    async with on_redis.book() as repository:
        for visitor in visitors:
            await one_refresh(on_redis, repository, visitor)


async def test_redis_killed_while_a_refresh_is_under_way_costs_nothing(on_redis: Fleet, own_redis: RedisServer) -> None:
    """The response arrives while the store is down: it is kept in memory, and written when the store is back."""
    visitor = on_redis.visitor()
    async with on_redis.book() as repository:
        await age(repository, visitor.grant, left=-1.0)
        await asyncio.sleep(CACHES)
        on_redis.akoya.fault("slow_after", "token.refresh_token", seconds=1.0, times=1)
        pending = asyncio.ensure_future(fetch(on_redis.port, visitor.cookie))
        await until_async(lambda: issued(on_redis), "the emulator has acted")
        own_redis.kill()
        await asyncio.sleep(2.0)
        own_redis.start()
        assert (await pending).status == 200
    async with on_redis.book() as repository:
        assert await stored(repository, visitor) is GrantState.LIVE
        await one_refresh(on_redis, repository, visitor)


async def issued(fleet: Fleet) -> bool:
    return bool(await asyncio.to_thread(fleet.refreshes, "issued"))


async def test_failover_under_load_loses_no_grant(redis_sentinel: SentinelGroup, tmp_path: Path) -> None:
    with Fleet(tmp_path, 2, store=f"{redis_sentinel.url}?wait=1") as fleet:
        visitor = fleet.visitor()

        def primary_dies() -> None:
            redis_sentinel.patient(60_000)
            redis_sentinel.primary.kill()

        async with load(fleet.ports, [visitor.cookie]) as seen:
            # No gateway can read or write until the sentinels have agreed on another primary.
            await trouble(fleet, seen, primary_dies, lambda: redis_sentinel.patient(SentinelGroup.patience))
        # One copy is left, so writes that require another one fail; start the old primary as a replica again.
        redis_sentinel.primary.start()
        async with fleet.book() as repository:
            await until_async(lambda: writable(repository, visitor), "there are two copies again")
            await one_refresh(fleet, repository, visitor)


async def test_failed_cluster_primary_under_load_loses_no_grant(tmp_path: Path) -> None:
    with Cluster(replicas=True) as cluster, Fleet(tmp_path, 2, store=cluster.url) as fleet:
        visitors = [fleet.visitor(), fleet.visitor("mikomo_4"), fleet.visitor("mikomo_7")]
        async with load(fleet.ports, [visitor.cookie for visitor in visitors]) as seen:
            await until_async(lambda: responded(seen, GOOD), "all requests succeed")
            await asyncio.to_thread(cluster.settled)
            mark = seen.mark()
            holder(cluster, visitors[0]).kill()
            await until_async(lambda: responded(seen, {503}, since=mark), "the outage shows")
            await until_async(lambda: recovered(seen), "its replica has taken over", within=40)
            for response in seen.since(mark):
                check_status(response)
        async with fleet.book() as repository:
            for visitor in visitors:
                await one_refresh(fleet, repository, visitor)


def holder(cluster: Cluster, visitor: Visitor) -> RedisServer:
    """Return the primary that holds the grant."""
    return next(server for server in cluster.primaries if server.client.keys(f"*:grant:{visitor.grant}"))


async def writable(repository: GrantRepository, visitor: Visitor) -> bool:
    with contextlib.suppress(Exception):
        await age(repository, visitor.grant, left=600.0)
        return True
    return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


async def test_sqlite_locked_full_and_corrupt(small_disk: Path, tmp_path: Path) -> None:
    file = small_disk / "grants.db"
    with Fleet(tmp_path, 2, store=f"sqlite://{file}") as fleet:
        visitor = fleet.visitor()
        async with fleet.book() as repository:
            await write_trouble(fleet, repository, visitor, locked(file))
            await write_trouble(fleet, repository, visitor, full(small_disk))
        await corrupted(fleet, visitor, file)


async def write_trouble(
    fleet: Fleet, repository: GrantRepository, visitor: Visitor, what: contextlib.AbstractContextManager[None]
) -> None:
    """Valid tokens are passed on; a request that needs a write gets a 503 without further effects."""
    before = len(fleet.refreshes())
    await age(repository, visitor.grant, left=600.0)
    await asyncio.sleep(CACHES)
    with what:
        response = await fetch(fleet.port, visitor.cookie)
        assert response.status == 200
        await until_async(lambda: readyz_returns(fleet, 503), "/readyz reports failure")
    await age(repository, visitor.grant, left=-1.0)
    await asyncio.sleep(CACHES)
    with what:
        response = await fetch(fleet.port, visitor.cookie)
        check_status(response)
        assert response.status == 503
        assert len(fleet.refreshes()) == before, "a token was used without a record of it"
    await until_async(lambda: served(fleet, visitor), "the service has recovered by itself")
    assert [use["outcome"] for use in fleet.refreshes()[before:]] == ["issued"]


async def served(fleet: Fleet, visitor: Visitor) -> bool:
    return (await fetch(fleet.port, visitor.cookie)).status == 200


class locked(contextlib.AbstractContextManager[None]):  # used like a function
    """Another program holds the write lock for a long time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class full(contextlib.AbstractContextManager[None]):
    """The disk is full to the last byte."""

    def __init__(self, disk: Path) -> None:
        self._rubbish = disk / "rubbish"

    def __enter__(self) -> None:
        with contextlib.suppress(OSError), self._rubbish.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(512))

    def __exit__(self, *_: object) -> None:
        self._rubbish.unlink()


async def corrupted(fleet: Fleet, visitor: Visitor, file: Path) -> None:
    """The database is damaged under a running gateway, until an operator restores a backup."""
    backup = fleet.folder / "backup.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM INTO ?", (str(backup),))
    async with load(fleet.ports, [visitor.cookie]) as seen:
        await trouble(fleet, seen, lambda: spoil(file), lambda: put(backup, file))


def spoil(file: Path) -> None:
    with file.open("r+b") as out:
        out.seek(4096)
        out.write(b"\xa5" * (file.stat().st_size - 4096))


def put(backup: Path, file: Path) -> None:
    """Restore as a careful operator would: replace the file atomically and delete the old write-ahead log."""
    shutil.copy(backup, file.with_suffix(".new"))
    for log in ("-wal", "-shm"):
        Path(f"{file}{log}").unlink(missing_ok=True)
    file.with_suffix(".new").replace(file)
