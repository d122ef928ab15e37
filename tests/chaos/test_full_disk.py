"""A disk that is really full: SQLite and the log of a gateway are on a small file system of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from akoya_gateway.grants import GrantRepository, GrantState
from tests.chaos.clients import fetch
from tests.chaos.replicas import CACHES, Fleet, Visitor, age, readyz
from tests.support.metrics import values
from tests.support.tiny_disk import fill, free, tiny_disk
from tests.support.waiting import until_async

__all__ = ["tiny_disk"]


async def unsaved(fleet: Fleet) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        text = (await client.get(f"{fleet.admin_url}/metrics")).content
    return values(text)["akoya_gateway_refreshes_unsaved{}"]


async def expire(repository: GrantRepository, visitor: Visitor) -> None:
    """Make the next request of this user wait for a refresh."""
    await age(repository, visitor.grant, left=-1.0)
    await asyncio.sleep(CACHES)


async def test_full_disk_during_a_refresh_loses_no_grant(tiny_disk: Path) -> None:
    """The response has new tokens, and the old refresh token is spent. They are saved when the disk has room again."""
    with Fleet(tiny_disk, 1) as fleet:
        visitor = fleet.visitor()

        async def issued(count: int) -> bool:
            return len(await asyncio.to_thread(fleet.refreshes)) == count

        async def fill_during_a_refresh() -> bool:
            """Return whether the disk was full when the response arrived. On a slow machine it is too late."""
            await expire(repository, visitor)
            spent = len(fleet.refreshes())
            fleet.akoya.fault("slow_after", "token.refresh_token", seconds=1.0, times=1)
            request = asyncio.ensure_future(fetch(fleet.port, visitor.cookie))
            await until_async(lambda: issued(spent + 1), "the old refresh token is spent")
            fill(tiny_disk)

            async def arrived() -> bool:
                return request.done() or await unsaved(fleet) == 1

            await until_async(arrived, "the response has arrived", within=60)
            was_full = await unsaved(fleet) == 1
            if was_full:
                status, body = await asyncio.to_thread(readyz, fleet)
                assert status == 503
                assert "disk" in body["problems"][0]
            free(tiny_disk)
            # 503 if a slow machine has needed longer than a request waits.
            assert (await request).status in {200, 503}
            return was_full

        async def saved() -> bool:
            return await unsaved(fleet) == 0

        async with fleet.book() as repository:
            await until_async(fill_during_a_refresh, "a response that meets a full disk", within=120)
            await until_async(saved, "the new tokens are saved")
        (gateway,) = fleet.gateways
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)
        async with fleet.book() as repository:
            grant = await repository.get(visitor.grant)
            assert grant is not None
            assert grant.state is GrantState.LIVE
            await expire(repository, visitor)
            assert (await fetch(fleet.port, visitor.cookie)).status == 200
        assert {use["outcome"] for use in fleet.refreshes()} == {"issued"}, "a spent refresh token was sent again"


async def test_full_disk_before_a_refresh_sends_none(tiny_disk: Path) -> None:
    """A refresh must store its lease before its request: without it no token is spent, and so none can be lost."""
    with Fleet(tiny_disk, 1) as fleet:
        visitor = fleet.visitor()

        async def not_ready() -> bool:
            return (await asyncio.to_thread(readyz, fleet))[0] == 503

        async with fleet.book() as repository:
            await expire(repository, visitor)
            fill(tiny_disk)
            await until_async(not_ready, "nothing can be written")
            assert (await fetch(fleet.port, visitor.cookie)).status == 503
            assert fleet.refreshes() == []
            free(tiny_disk)

            async def served() -> bool:
                return (await fetch(fleet.port, visitor.cookie)).status == 200

            await until_async(served, "there is room again")
        assert [use["outcome"] for use in fleet.refreshes()] == ["issued"]
