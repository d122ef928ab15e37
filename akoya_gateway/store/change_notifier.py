"""Waiting for a record to change: the waiters of each record, and the wait loop that all stores share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from akoya_gateway.clock import Clock
from akoya_gateway.store.base import Record

Name = tuple[str, str]
"""The (kind, key) of a record."""

Read = Callable[[str, str], Awaitable[Record | None]]


class ChangeNotifier:
    """Notifies waiters of changed records, with one `asyncio.Event` per waiter.

    True if anyone waits; `name in notifier` is true if anyone waits for that record.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[Name, set[asyncio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __contains__(self, name: Name) -> bool:
        return name in self._waiters

    @contextmanager
    def subscribe(self, name: Name) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the record changes."""
        bell = asyncio.Event()
        self._waiters.setdefault(name, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._waiters[name]
            bells.remove(bell)
            if not bells:
                del self._waiters[name]

    def notify(self, name: Name) -> None:
        """Wake all waiters of the record."""
        for bell in self._waiters.get(name, ()):
            bell.set()

    def notify_all(self) -> None:
        """Wake all waiters of all records."""
        for name in self._waiters:
            self.notify(name)


async def wait_until_changed(
    read: Read,
    changed: asyncio.Event,
    name: Name,
    *,
    version: int,
    timeout: float,
    clock: Clock,
    poll_interval: float | None = None,
) -> Record | None:
    """Implement `Store.changed`: read, wait for the event, read again.

    A record with an expiry is also read again when it expires.

    Args:
        read: Reads the record.
        changed: The event of this waiter. It must be subscribed before the call, so that no change is missed.
        name: The record.
        version: Return as soon as the record no longer has this version.
        timeout: Seconds after which the record is returned even if it has not changed.
        clock: Used for the expiry of the record.
        poll_interval: Seconds after which to read again without a notification, because notifications can be lost.
    """
    deadline = time.monotonic() + timeout
    while True:
        changed.clear()
        record = await read(*name)
        left = deadline - time.monotonic()
        if record is None or record.version != version or left <= 0:
            return record
        pause = left if poll_interval is None else min(left, poll_interval)
        if record.expires_at is not None:
            pause = min(pause, max(record.expires_at - clock(), 0.001))
        try:
            async with asyncio.timeout(pause):
                await changed.wait()
        except TimeoutError:
            continue
