"""Refreshing grants in use before anybody has to wait for it.

One lane an environment: the grants of owners seen lately, by the moment they are due, worked off at no more than
`environment.rate` a second and a few at a time. A grant whose owner has not been seen is let go; when the owner comes
back, reading the grants puts it on the lane again.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from akoya_gateway.clock import Clock
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.grants.refresh_policy import due_at, held_until
from akoya_gateway.tasks import ended, keep_running

IN_USE = 1800.0
"""Seconds after a request of the owner for which their grants are kept fresh."""

AT_ONCE = 4
"""Background refreshes in flight at a time, per environment."""

MOST = 100_000
"""Grants on all lanes; beyond that the least recently seen wait for their owner's next request."""

EARLY = 2.0
"""At most this many times as early as a request would ask for it."""

Refresh = Callable[[Grant], "asyncio.Task[Grant]"]

_RENEWABLE = frozenset({GrantState.LIVE, GrantState.UNCERTAIN})


@dataclass(slots=True)
class _Planned:
    grant: Grant
    due: float
    seen_at: float


@dataclass(slots=True)
class _Lane:
    rate: float
    heap: list[tuple[float, str]] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    flying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    task: asyncio.Task[None] | None = None


class Background:
    """`refresh` starts the one flight of a grant, up to `EARLY` margins early; `rates` says how many a second each
    environment allows."""

    def __init__(
        self,
        *,
        refresh: Refresh,
        rates: Callable[[str], float],
        refresh_before: float,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._since = clock()
        self._refresh = refresh
        self._rates = rates
        self._refresh_before = refresh_before
        self._clock = clock
        self._random = random
        self._planned: OrderedDict[str, _Planned] = OrderedDict()
        self._lanes: dict[str, _Lane] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._running = False

    def seen(self, grants: OwnerGrants) -> None:
        """The owner's grants were read or changed, because somebody needs them. Cheap; called about once a second
        for an owner who is busy."""
        now = self._clock()
        for grant in grants.grants:
            if grant.state in _RENEWABLE and grant.tokens.refresh_token is not None:
                self._plan(grant, now)
            elif grant.state is not GrantState.REFRESHING:
                self._planned.pop(grant.id, None)

    def start(self) -> None:
        self._running = True
        for environment, lane in self._lanes.items():
            self._open(environment, lane)

    async def stop(self) -> None:
        """No new refreshes; those that fly are the refresher's to wait for."""
        self._running = False
        await ended(*[lane.task for lane in self._lanes.values()], *self._waiting)

    def __len__(self) -> int:
        return len(self._planned)

    def _plan(self, grant: Grant, now: float) -> None:
        planned = self._planned.pop(grant.id, None)
        if planned is None or _moment(planned.grant) != _moment(grant):
            planned = _Planned(grant, self._due(grant), now)
            self._schedule(grant, planned.due)
        self._planned[grant.id] = replace(planned, grant=grant, seen_at=now)
        while len(self._planned) > MOST:
            self._planned.popitem(last=False)

    def _due(self, grant: Grant) -> float:
        """Before a request would have to wait, and spread, so that replicas and grants of one hour do not meet."""
        spread = self._random()
        if grant.state is GrantState.UNCERTAIN and grant.reuse is not None and self._clock() < grant.reuse.until:
            return grant.reuse.at
        if grant.state is GrantState.UNCERTAIN:
            return max(grant.tokens.expires_at, grant.retry_at) + spread
        early = due_at(grant, self._refresh_before, EARLY - (EARLY - 1.1) * spread)
        return max(early, held_until(grant, self._since))

    def _schedule(self, grant: Grant, due: float) -> None:
        environment = grant.key.environment
        lane = self._lanes.get(environment)
        if lane is None:
            lane = self._lanes[environment] = _Lane(self._rates(environment))
            if self._running:
                self._open(environment, lane)
        heapq.heappush(lane.heap, (due, grant.id))
        if lane.heap[0][1] == grant.id:
            lane.wake.set()

    def _open(self, environment: str, lane: _Lane) -> None:
        lane.task = asyncio.get_running_loop().create_task(
            keep_running(f"background refresh of {environment}", lambda: self._drive(lane))
        )

    async def _drive(self, lane: _Lane) -> None:
        while True:
            lane.wake.clear()
            pause = lane.heap[0][0] - self._clock() if lane.heap else 3600.0
            if pause > 0.0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await lane.wake.wait()
                continue
            due, grant_id = heapq.heappop(lane.heap)
            planned = self._planned.get(grant_id)
            if planned is None or planned.due != due:
                continue  # It was planned anew, or let go.
            del self._planned[grant_id]
            if self._clock() - planned.seen_at <= IN_USE:
                await lane.flying.acquire()
                self._fly(lane, planned)
                await asyncio.sleep(1.0 / lane.rate)

    def _fly(self, lane: _Lane, planned: _Planned) -> None:
        waiting = asyncio.get_running_loop().create_task(self._follow(lane, planned))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _follow(self, lane: _Lane, planned: _Planned) -> None:
        try:
            flight = self._refresh(planned.grant)
            await asyncio.wait({flight})
        finally:
            lane.flying.release()
        # What came of it is in the cache, whose `put` plans the grant anew, and in the log.


def _moment(grant: Grant) -> tuple[GrantState, float, float]:
    """What the moment it is due depends on."""
    return grant.state, grant.tokens.expires_at, grant.retry_at
