"""Refreshes grants in use in the background, so that requests do not have to wait for a refresh.

There is one queue per environment. It has the grants of recently active owners, ordered by due time, and starts at most
`environment.rate` refreshes a second and a few at a time. Grants of inactive owners are dropped. When such an
owner returns, reading the grants schedules them again.
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
"""Seconds after an owner's last request during which their grants are refreshed in the background."""

MAX_CONCURRENT = 4
"""Maximum number of concurrent background refreshes per environment."""

MAX_ENTRIES = 100_000
"""Maximum number of scheduled grants. Beyond it, the least recently seen are dropped until the owner's next request."""

EARLY_FACTOR = 2.0
"""Background refreshes start at most this many times the margin before expiry; a request refreshes at one margin."""

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
    """Schedules background refreshes.

    `refresh` starts the in-flight refresh of a grant, up to `EARLY_FACTOR` margins early. `rates` returns how many
    requests per second an environment allows.
    """

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
        """Schedule the grants of an owner, which were just read or changed.

        Cheap; called about once a second for an active owner.
        """
        now = self._clock()
        for grant in grants.grants:
            if grant.state in _RENEWABLE and grant.tokens.refresh_token is not None:
                self._update(grant, now)
            elif grant.state is not GrantState.REFRESHING:
                self._scheduled.pop(grant.id, None)

    def start(self) -> None:
        """Start one task per environment."""
        self._running = True
        for environment, queue in self._queues.items():
            self._open(environment, queue)

    async def stop(self) -> None:
        """Stop starting refreshes. Does not wait for those in flight; `Refresher.drain` does."""
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
        """Return when to refresh the grant: before a request would have to wait for it.

        The time is randomized, so that replicas, and grants that were connected at the same time, do not refresh at
        once.
        """
        spread, now = self._random(), self._clock()
        if grant.state is GrantState.UNCERTAIN and grant.reuse is not None and now < grant.reuse.until:
            return grant.reuse.at
        if grant.state is GrantState.UNCERTAIN:
            return max(grant.tokens.expires_at, held_until(grant, now, self._since)) + spread
        early = due_at(grant, self._refresh_before, EARLY_FACTOR - (EARLY_FACTOR - 1.1) * spread)
        return max(early, held_until(grant, now, self._since))

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
                continue  # The grant was rescheduled or dropped.
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
        # The result is not needed here: the refresher logs it, and `GrantCache.put` reschedules the grant.


def _moment(grant: Grant) -> tuple[GrantState, float, float]:
    """Return the values of the grant that its due time depends on."""
    return grant.state, grant.tokens.expires_at, grant.retry_at
