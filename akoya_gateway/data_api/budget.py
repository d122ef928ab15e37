"""The calls of one environment that may be sent: one budget for all processes that share the store.

Calls wait here until it is their turn. One task reserves calls for all that wait in this process, so that the store is
asked at most once a tick, however many wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable

from akoya_gateway.clock import Clock
from akoya_gateway.data_api.errors import TooManyCalls
from akoya_gateway.data_api.schedule import TICK, Reservation, Usage, reserve
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
"""Maximum number of calls that wait in this process. The next gets 429 at once."""
MAX_CONFLICTS = 5
"""Number of processes that may change the record first before this one waits for the next tick."""

log = logger("akoya_gateway.data_api")

Waiter = asyncio.Future[None]


class FairQueue:
    """Waiting calls by owner. Owners take turns, so that one with many calls does not delay the others."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, owner: str, waiter: Waiter) -> None:
        """Add a call at the end of its owner's."""
        self._owners.setdefault(owner, deque()).append(waiter)
        self._count += 1

    def remove(self, owner: str, waiter: Waiter) -> None:
        """Remove a call that no longer waits, if it is still here."""
        waiting = self._owners.get(owner)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            self._removed(owner, waiting)

    def pop(self) -> Waiter:
        """Return and remove the first call of the owner whose turn it is."""
        owner, waiting = next(iter(self._owners.items()))
        self._owners.move_to_end(owner)
        waiter = waiting.popleft()
        self._removed(owner, waiting)
        return waiter

    def pop_last(self) -> Waiter:
        """Return and remove the last call of the owner who has had a turn most recently."""
        owner, waiting = next(reversed(self._owners.items()))
        waiter = waiting.pop()
        self._removed(owner, waiting)
        return waiter

    def _removed(self, owner: str, waiting: deque[Waiter]) -> None:
        self._count -= 1
        if not waiting:
            del self._owners[owner]


class Budget:
    """The budget of one environment: at most `rate` calls in any second."""

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
        """The version of the record that holds `_usage`, if no other process has changed it since; 0: no record."""
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._is_alone = False

    @property
    def waiting(self) -> int:
        """The number of calls that wait in this process."""
        return len(self._interactive) + len(self._background)

    def retry_after(self) -> int:
        """Return the seconds after which another try may be worthwhile."""
        return max(1, math.ceil(self.waiting / self._rate))

    def pause(self, seconds: float) -> None:
        """Send nothing for a while, because Akoya said that there were too many calls."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def acquire(self, owner: str, *, is_background: bool) -> None:
        """Wait until a call may be sent.

        An interactive call takes the place of a background call if too many wait.

        Raises:
            TooManyCalls: `MAX_WAITING` calls wait already, or this background call has lost its place.
        """
        if self.waiting >= MAX_WAITING:
            if is_background or not self._background:
                raise TooManyCalls(retry_after=self.retry_after())
            self._drop(self._background.pop_last())
        waiter: Waiter = asyncio.get_running_loop().create_future()
        queue = self._background if is_background else self._interactive
        queue.add(owner, waiter)
        if not is_background:
            self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"data rate {self._environment}")
        try:
            await waiter
        finally:
            queue.remove(owner, waiter)

    async def close(self) -> None:
        """Stop. Calls that wait fail."""
        await cancel_and_wait(self._task)
        while self.waiting:
            self._drop((self._interactive or self._background).pop())

    def _drop(self, waiter: Waiter) -> None:
        if not waiter.done():
            waiter.set_exception(TooManyCalls(retry_after=self.retry_after()))

    async def _run(self) -> None:
        """Reserve calls and let them go, until none waits."""
        loop = asyncio.get_running_loop()
        while self.waiting:
            pause = self._paused_until - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            self._arrived.clear()
            reserved = await self._reserve()
            for queue, count in ((self._interactive, reserved.interactive), (self._background, reserved.background)):
                for _ in range(min(count, len(queue))):
                    waiter = queue.pop()
                    if not waiter.done():
                        waiter.set_result(None)
            if self.waiting:
                await self._sleep(reserved.wait + TICK * self._random())

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not longer than until an interactive call arrives while only background calls wait."""
        if self._interactive:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            pass

    async def _reserve(self) -> Reservation:
        """Reserve calls in the store. If the store cannot be used, this process counts its own calls only."""
        try:
            reserved = await self._reserve_shared()
        except (StoreUnavailable, UndecryptableRecord, DamagedRecord) as error:
            if not self._is_alone:
                log.warning("data rate not shared", environment=self._environment, reason=error.code)
            self._is_alone = True
            reserved = self._compute()
            self._usage, self._version = reserved.usage, 0
            return reserved
        self._is_alone = False
        return reserved

    async def _reserve_shared(self) -> Reservation:
        for _ in range(MAX_CONFLICTS):
            reserved = self._compute()
            if await self._write(reserved.usage):
                self._usage, self._version = reserved.usage, self._version + 1
                return reserved
            record = await self._store.get(KIND, self._environment)
            self._usage = Usage() if record is None else Usage.decoded(record.body)
            self._version = 0 if record is None else record.version
        return Reservation(0, 0, TICK, self._usage)

    def _compute(self) -> Reservation:
        return reserve(self._usage, self._clock(), self._rate, len(self._interactive), len(self._background))

    async def _write(self, usage: Usage) -> bool:
        record = Record(
            KIND,
            self._environment,
            usage.encoded(),
            version=self._version + 1,
            expires_at=self._clock() + RECORD_SECONDS,
        )
        return await self._store.put(record)
