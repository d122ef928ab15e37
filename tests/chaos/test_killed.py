"""`kill -9` at every step of a refresh: the grant is live or uncertain as the provider's state says, and never lost."""

from __future__ import annotations

from asyncio import Queue, gather, sleep
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import Grant, GrantState, NeedsReconnect
from akoya_gateway.grants.events import Reason
from tests.chaos.conftest import FULL
from tests.chaos.killing import LEFT, Nursery, Place, Point, held, kill, nurseries, queue_of, seeded, tally
from tests.chaos.replicas import age, fingerprint

POINTS = 1000 if FULL else 20
"""Kills for each store."""
BATCH = min(POINTS, 100)
DISCONNECTS = 300 if FULL else 20
AT_LINES = BATCH * 7 // 10
"""Kills of a batch at a chosen line of code; the others are at random times."""
STORED, SURVIVED = "token used, its successor stored", "done before it was killed"
SLOW = 0.12
"""Maximum delay of the emulator in seconds, before or after it has done its work."""


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path}/grants.db"
    else:
        server = request.getfixturevalue("redis_server")
        yield f"{server.url}?prefix={tmp_path.name}"


@pytest.fixture(scope="module")
def pool() -> Iterator[list[Nursery]]:
    with nurseries() as started:
        yield started


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_gateway_killed_at_any_step_of_a_refresh_leaves_the_truth(
    pool: list[Nursery], store: str, tmp_path: Path
) -> None:
    """One store is tested with plain refusal of reused tokens, the other with revocation of the whole family."""
    random, seen = seeded(), []
    dialect = "hydra" if store.startswith("sqlite") else "dex"
    async with Place(tmp_path, store, dialect) as place:
        free = queue_of(pool, place.path)
        whole = await kill(free, await place.point(0))
        assert whole is not None
        for start in range(0, POINTS, BATCH):
            place.ahead = 0.0
            points = [await place.point(start + n) for n in range(1, BATCH + 1)]
            await kill_at_lines(place, free, points[:AT_LINES], whole, random)
            await kill_at_times(place, free, points[AT_LINES:], random)
            seen += [await just_after(place, point) for point in points]
            place.ahead = 15.0  # the killed gateway's lease has expired, the old bearer is valid
            for point in points:
                await while_the_bearer_lives(place, point)
            place.ahead = LEFT + 120.0  # the bearer has expired, the quarantine is over
            for point in points:
                await afterwards(place, point)
    print(f"{len(seen)} gateways at work on a refresh of {whole} lines:", tally(seen))
    assert seen.count(SURVIVED) < 0.5 * len(seen), "only gateways that are killed at random times may survive"


async def kill_at_lines(place: Place, free: Queue[Nursery], points: list[Point], whole: int, random: Random) -> None:
    """Kill each gateway at a line chosen at random among those that a whole refresh runs."""
    await gather(*[kill(free, point, lines=random.randrange(1, whole)) for point in points])


async def kill_at_times(place: Place, free: Queue[Nursery], points: list[Point], random: Random) -> None:
    """Kill each gateway at a random time. The emulator delays half of its work and half of its responses."""
    place.akoya.fault("slow", "token.refresh_token", seconds=SLOW, probability=0.5)
    place.akoya.fault("slow_after", "token.refresh_token", seconds=SLOW, probability=0.5)
    await gather(*[kill(free, point, seconds=random.uniform(0.0, 0.3)) for point in points])
    await sleep(2 * SLOW + 0.2)  # requests in flight from killed gateways arrive
    place.akoya.clear_faults()


async def just_after(place: Place, point: Point) -> str:
    place.look([point])
    grant = await place.stored(point)
    uses = [use["outcome"] for use in point.uses]
    if not uses:
        assert held(grant) == point.first, point
        assert grant.state in (GrantState.LIVE, GrantState.REFRESHING), point
        return f"token not used, {grant.state}"
    assert uses == ["issued"], point
    assert point.uses[0]["presented"] == point.first, point
    if held(grant) == point.issued[0]["issued"]:
        assert grant.state is GrantState.LIVE, point
        return STORED if point.killed else SURVIVED
    # The intent was written before the request was sent, so this grant is never taken for a live one.
    assert held(grant) == point.first, point
    assert grant.state is GrantState.REFRESHING, point
    return "token used, its successor lost"


async def while_the_bearer_lives(place: Place, point: Point) -> None:
    before = await place.stored(point)
    response = await place.fresh(point)
    assert isinstance(response, Grant), point
    assert response.usable(place.clock()), point
    if before.state is GrantState.REFRESHING:
        # The grant is reported as uncertain. The old bearer is passed on and the refresh token not used.
        assert (response.state, response.reason) == (GrantState.UNCERTAIN, Reason.HOLDER_LOST), point
        assert response.tokens.bearer == before.tokens.bearer
    else:
        assert response.state is GrantState.LIVE, point


async def afterwards(place: Place, point: Point) -> None:
    before = await place.stored(point)
    place.look([point])
    used = len(point.uses)
    lost = bool(point.issued) and held(before) == point.first
    response = await place.fresh(point)
    place.look([point])
    if lost:
        # The single attempt returns the true outcome.
        assert isinstance(response, NeedsReconnect), point
        assert response.grant.reason == Reason.OUTCOME_UNKNOWN, point
        assert [use["outcome"] for use in point.uses] == ["issued", "refused"], point
    else:
        assert isinstance(response, Grant), (point, response)
        assert response.state is GrantState.LIVE, point
        assert len(point.uses) - used == (1 if before.state is GrantState.UNCERTAIN else 0), point
        await one_more(place, point)
        # No token was used twice, and each request used the token issued by the one before.
        assert [use["outcome"] for use in point.uses] == ["issued"] * len(point.uses), point
        tokens = [point.first, *[use["issued"] for use in point.uses]]
        assert [use["presented"] for use in point.uses] == tokens[:-1], point


async def one_more(place: Place, point: Point) -> None:
    """Refresh once more: the emulator must accept what is stored."""
    await age(place.book, point.grant, -1.0)
    response = await place.fresh(point)
    assert not isinstance(response, GatewayError), (point, response)
    place.look([point])
    assert fingerprint(response.tokens.bearer.reveal()) == point.uses[-1]["id_token"]


async def test_gateway_killed_during_a_disconnect_leaves_no_unrecorded_token(
    pool: list[Nursery], store: str, tmp_path: Path
) -> None:
    """Either the grant is still listed and can be disconnected again, or its token is queued for revocation."""
    random = seeded()
    async with Place(tmp_path, store, "hydra") as place:
        free = queue_of(pool, place.path)
        whole = await kill(free, await place.point(0), do="disconnect")
        assert whole is not None
        points = [await place.point(1 + n) for n in range(DISCONNECTS)]
        await gather(
            *[kill(free, point, do="disconnect", lines=1 + int(whole * random.random() ** 0.5)) for point in points]
        )
        seen = []
        for point in points:
            grants = place.new_manager()
            grant = await place.stored(point)
            waiting = await grants.revocation_queue.count()
            seen.append(str(grant.state))
            if grant.state is not GrantState.REVOKED:
                assert held(grant) == point.first
                await grants.disconnect(grant)
                assert await grants.revocation_queue.count() in (waiting, waiting + 1)
        await place.new_manager().revocation_queue.sweep()
        revoked = {event["presented"] for event in place.akoya.events("revoke") if event["outcome"] == "revoked"}
        assert {point.first for point in points} <= revoked
        assert not await place.new_manager().revocation_queue.count()
    print(f"{len(seen)} gateways at work on a disconnect of {whole} lines:", tally(seen))
