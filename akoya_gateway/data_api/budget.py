"""Limits the rate of data API calls of one environment, over all processes that share the store.

Calls wait here until they may be sent. One task per process reserves calls for all waiting calls together, so that it
accesses the store about once a tick, however many calls wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from akoya_gateway.clock import Clock
from akoya_gateway.data_api.errors import TooManyCalls
from akoya_gateway.data_api.schedule import MAX_DELAY, MIN_DELAY, TICK, Reservation, Usage, reserve
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.log import logger
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord
from akoya_gateway.tasks import cancel_and_wait

KIND = "data_rate"
RECORD_SECONDS = 60.0
"""Seconds after which the record of an unused budget is deleted."""
MAX_WAITING = 100
"""Maximum number of calls that wait in this process. Further calls get 429 at once."""
MAX_CONFLICTS = 5
"""Number of write conflicts with other processes after which this one waits for the next tick."""
DELAY_SECONDS = 10.0
"""Seconds after which a delay that was longer than necessary is reduced by a tick."""

log = logger("akoya_gateway.data_api")


class Turn(NamedTuple):
    """The permission to send a call. `until` is the time of the event loop until which it may be sent.

    `delay` is the delay in ticks with which it was reserved (`schedule.reserve`).
    """

    until: float
    delay: int


Waiter = asyncio.Future[Turn]
"""A waiting call."""


class FairQueue:
    """Waiting calls, grouped by owner. Owners take turns, so that one with many calls does not delay the others."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, owner: str, waiter: Waiter) -> None:
        """Add a call after the other calls of its owner."""
        self._owners.setdefault(owner, deque()).append(waiter)
        self._count += 1

    def remove(self, owner: str, waiter: Waiter) -> None:
        """Remove a call that no longer waits, if it is still queued."""
        waiting = self._owners.get(owner)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            self._removed(owner, waiting)

    def pop(self) -> Waiter:
        """Remove and return the first call of the owner whose turn is next."""
        owner, waiting = next(iter(self._owners.items()))
        self._owners.move_to_end(owner)
        waiter = waiting.popleft()
        self._removed(owner, waiting)
        return waiter

    def pop_last(self) -> Waiter:
        """Remove and return the last call of the owner whose turn is furthest away."""
        owner, waiting = next(reversed(self._owners.items()))
        waiter = waiting.pop()
        self._removed(owner, waiting)
        return waiter

    def pop_of_largest(self, owner: str) -> Waiter | None:
        """Remove and return the last call of the owner with the most calls.

        Return None if that owner would be left with fewer calls than `owner` would have.
        """
        largest = max(self._owners, key=lambda each: len(self._owners[each]), default=owner)
        if len(self._owners.get(largest, ())) <= len(self._owners.get(owner, ())) + 1:
            return None
        waiting = self._owners[largest]
        waiter = waiting.pop()
        self._removed(largest, waiting)
        return waiter

    def _removed(self, owner: str, waiting: deque[Waiter]) -> None:
        self._count -= 1
        if not waiting:
            del self._owners[owner]


class SendDelay:
    """The delay with which this process sends calls after reserving them, in ticks. Adapts to the measured delays."""

    def __init__(self) -> None:
        self._ticks = MIN_DELAY
        self._changed = 0.0

    def ticks(self, now: float) -> int:
        """Return the delay to allow for in a reservation. `now` is the time of the event loop."""
        if self._ticks > MIN_DELAY and now - self._changed > DELAY_SECONDS:
            self._ticks -= 1
            self._changed = now
        return self._ticks

    def increase(self, now: float, delay: int, seconds: float) -> None:
        """Increase the delay to at least `delay` plus `seconds` (rounded up to ticks, at least one).

        `delay` is the delay with which the late call was reserved, not the present one. After a pause of the process
        all calls of a tick are late, and should increase the delay only once.
        """
        self._ticks = min(max(self._ticks, delay + max(math.ceil(seconds / TICK), 1)), MAX_DELAY)
        self._changed = now


class Budget:
    """Rate limit of one environment: at most `rate` calls in any second."""

    def __init__(
        self, environment: str, rate: float, store: EncryptedStore, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._environment = environment
        self._rate = rate
        self._store = store
        self._clock = clock
        self._random = random
        self._interactive = FairQueue()
        self._background = FairQueue()
        self._usage = Usage()
        self._version = 0
        """The version of the stored record that `_usage` is from, or 0 if there is none. It may be outdated."""
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._is_alone = False
        self._delay = SendDelay()

    @property
    def waiting(self) -> int:
        """The number of calls that wait in this process."""
        return len(self._interactive) + len(self._background)

    def retry_after(self) -> int:
        """Return the seconds after which another call may succeed."""
        return max(1, math.ceil(self.waiting / self._rate))

    def pause(self, seconds: float) -> None:
        """Send no calls for `seconds`, because Akoya has reported too many.

        This means that calls arrived at Akoya closer together than they were reserved, so later calls are reserved
        further apart.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._paused_until:
            self._delay.increase(now, self._delay.ticks(now), TICK)
        self._paused_until = max(self._paused_until, now + seconds)

    def may_still_send(self, turn: Turn) -> bool:
        """Return False if a call is too late for its turn, and must acquire another.

        Other processes may have reserved its place in the meantime. If even the longest delay is too short, for example
        because connections take seconds to set up, the call is sent anyway. Otherwise no call would ever be sent.
        """
        now = asyncio.get_running_loop().time()
        if now <= turn.until or turn.delay == MAX_DELAY:
            return True
        self._delay.increase(now, turn.delay, now - turn.until)
        return False

    async def acquire(self, owner: str, *, is_background: bool) -> Turn:
        """Wait until a call may be sent.

        If too many wait, an interactive call replaces a background call, and a call of an owner with few calls replaces
        one of the owner with the most, so that no owner can take all places. The replaced call fails.

        Raises:
            TooManyCalls: `MAX_WAITING` calls wait already and this one replaces none, or another call has replaced it.
        """
        queue = self._background if is_background else self._interactive
        if self.waiting >= MAX_WAITING:
            replaced = self._background.pop_last() if not is_background and self._background else None
            replaced = replaced or queue.pop_of_largest(owner)
            if replaced is None:
                raise TooManyCalls(retry_after=self.retry_after())
            self._drop(replaced)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        queue.add(owner, waiter)
        if not is_background:
            self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"data rate {self._environment}")
        try:
            return await waiter
        finally:
            queue.remove(owner, waiter)

    async def close(self) -> None:
        """Stop. Waiting calls fail with `TooManyCalls`."""
        await cancel_and_wait(self._task)
        while self.waiting:
            self._drop((self._interactive or self._background).pop())

    def _drop(self, waiter: Waiter) -> None:
        if not waiter.done():
            waiter.set_exception(TooManyCalls(retry_after=self.retry_after()))

    async def _run(self) -> None:
        """Reserve and release calls until none waits."""
        loop = asyncio.get_running_loop()
        while self.waiting:
            pause = self._paused_until - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            self._arrived.clear()
            turn, reserved = await self._reserve()
            for queue, count in ((self._interactive, reserved.interactive), (self._background, reserved.background)):
                for _ in range(min(count, len(queue))):
                    waiter = queue.pop()
                    if not waiter.done():
                        waiter.set_result(turn)
            if self.waiting:
                await self._sleep(reserved.wait + TICK * self._random())

    async def _sleep(self, seconds: float) -> None:
        """Sleep. If only background calls wait, the arrival of an interactive call ends the sleep."""
        if self._interactive:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            pass

    async def _reserve(self) -> tuple[Turn, Reservation]:
        """Reserve calls in the store. If the store is unavailable, count only the calls of this process."""
        try:
            turn, reserved = await self._reserve_shared()
        except (StoreUnavailable, UndecryptableRecord, DamagedRecord) as error:
            if not self._is_alone:
                log.warning("data rate not shared", environment=self._environment, reason=error.code)
            self._is_alone = True
            turn, reserved = self._compute()
            self._usage, self._version = reserved.usage, 0
            return turn, reserved
        self._is_alone = False
        return turn, reserved

    async def _reserve_shared(self) -> tuple[Turn, Reservation]:
        for _ in range(MAX_CONFLICTS):
            turn, reserved = self._compute()
            if await self._write(reserved.usage):
                self._usage, self._version = reserved.usage, self._version + 1
                return turn, reserved
            record = await self._store.get(KIND, self._environment)
            self._usage = Usage() if record is None else Usage.decoded(record.body)
            self._version = 0 if record is None else record.version
        return Turn(0.0, 0), Reservation(0, 0, TICK, self._usage, 0.0)

    def _compute(self) -> tuple[Turn, Reservation]:
        now = asyncio.get_running_loop().time()
        waiting = len(self._interactive), len(self._background)
        delay = self._delay.ticks(now)
        reserved = reserve(self._usage, self._clock(), self._rate, *waiting, delay)
        return Turn(now + reserved.valid_seconds, delay), reserved

    async def _write(self, usage: Usage) -> bool:
        record = Record(
            KIND,
            self._environment,
            usage.encoded(),
            version=self._version + 1,
            expires_at=self._clock() + RECORD_SECONDS,
        )
        return await self._store.put(record)
