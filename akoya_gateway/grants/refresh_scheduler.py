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
from akoya_gateway.tasks import cancel_and_wait, keep_running

ACTIVE_SECONDS = 1800.0
"""Seconds after a request of the owner for which their grants are kept fresh."""

MAX_CONCURRENT = 4
"""Background refreshes in flight at a time, per environment."""

MAX_ENTRIES = 100_000
"""Grants on all lanes; beyond that the least recently seen wait for their owner's next request."""

EARLY_FACTOR = 2.0
"""At most this many times as early as a request would ask for it."""

Refresh = Callable[[Grant], "asyncio.Task[Grant]"]

_RENEWABLE = frozenset({GrantState.LIVE, GrantState.UNCERTAIN})


@dataclass(slots=True)
class _ScheduledRefresh:
    grant: Grant
    due_at: float
    seen_at: float


@dataclass(slots=True)
class _EnvironmentQueue:
    rate: float
    heap: list[tuple[float, str]] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT))
    task: asyncio.Task[None] | None = None


class RefreshScheduler:
    """`refresh` starts the one flight of a grant, up to `EARLY_FACTOR` margins early; `rates` says how many a second
    each environment allows."""

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
        self._scheduled: OrderedDict[str, _ScheduledRefresh] = OrderedDict()
        self._queues: dict[str, _EnvironmentQueue] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._running = False

    def on_grants_seen(self, grants: OwnerGrants) -> None:
        """The owner's grants were read or changed, because somebody needs them. Cheap; called about once a second
        for an owner who is busy."""
        now = self._clock()
        for grant in grants.grants:
            if grant.state in _RENEWABLE and grant.tokens.refresh_token is not None:
                self._update(grant, now)
            elif grant.state is not GrantState.REFRESHING:
                self._scheduled.pop(grant.id, None)

    def start(self) -> None:
        self._running = True
        for environment, queue in self._queues.items():
            self._open(environment, queue)

    async def stop(self) -> None:
        """No new refreshes; those that fly are the refresher's to wait for."""
        self._running = False
        await cancel_and_wait(*[queue.task for queue in self._queues.values()], *self._waiting)

    def __len__(self) -> int:
        return len(self._scheduled)

    def _update(self, grant: Grant, now: float) -> None:
        planned = self._scheduled.pop(grant.id, None)
        if planned is None or _moment(planned.grant) != _moment(grant):
            planned = _ScheduledRefresh(grant, self._due(grant), now)
            self._schedule(grant, planned.due_at)
        self._scheduled[grant.id] = replace(planned, grant=grant, seen_at=now)
        while len(self._scheduled) > MAX_ENTRIES:
            self._scheduled.popitem(last=False)

    def _due(self, grant: Grant) -> float:
        """Before a request would have to wait, and spread, so that replicas and grants of one hour do not meet."""
        spread = self._random()
        if grant.state is GrantState.UNCERTAIN and grant.reuse is not None and self._clock() < grant.reuse.until:
            return grant.reuse.at
        if grant.state is GrantState.UNCERTAIN:
            return max(grant.tokens.expires_at, grant.retry_at) + spread
        early = due_at(grant, self._refresh_before, EARLY_FACTOR - (EARLY_FACTOR - 1.1) * spread)
        return max(early, held_until(grant, self._since))

    def _schedule(self, grant: Grant, due: float) -> None:
        environment = grant.key.environment
        queue = self._queues.get(environment)
        if queue is None:
            queue = self._queues[environment] = _EnvironmentQueue(self._rates(environment))
            if self._running:
                self._open(environment, queue)
        heapq.heappush(queue.heap, (due, grant.id))
        if queue.heap[0][1] == grant.id:
            queue.wake.set()

    def _open(self, environment: str, queue: _EnvironmentQueue) -> None:
        queue.task = asyncio.get_running_loop().create_task(
            keep_running(f"background refresh of {environment}", lambda: self._run_queue(queue))
        )

    async def _run_queue(self, queue: _EnvironmentQueue) -> None:
        while True:
            queue.wake.clear()
            pause = queue.heap[0][0] - self._clock() if queue.heap else 3600.0
            if pause > 0.0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await queue.wake.wait()
                continue
            due, grant_id = heapq.heappop(queue.heap)
            planned = self._scheduled.get(grant_id)
            if planned is None or planned.due_at != due:
                continue  # It was planned anew, or let go.
            del self._scheduled[grant_id]
            if self._clock() - planned.seen_at <= ACTIVE_SECONDS:
                await queue.in_flight.acquire()
                self._start_refresh(queue, planned)
                await asyncio.sleep(1.0 / queue.rate)

    def _start_refresh(self, queue: _EnvironmentQueue, planned: _ScheduledRefresh) -> None:
        waiting = asyncio.get_running_loop().create_task(self._await_refresh(queue, planned))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _await_refresh(self, queue: _EnvironmentQueue, planned: _ScheduledRefresh) -> None:
        try:
            flight = self._refresh(planned.grant)
            await asyncio.wait({flight})
        finally:
            queue.in_flight.release()
        # What came of it is in the cache, whose `put` plans the grant anew, and in the log.


def _moment(grant: Grant) -> tuple[GrantState, float, float]:
    """What the moment it is due depends on."""
    return grant.state, grant.tokens.expires_at, grant.retry_at
