"""Waiting for a record to change: who waits for which, and the one loop that all stores share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from akoya_gateway.clock import Clock
from akoya_gateway.store.base import Record

Name = tuple[str, str]
"""(kind, key)."""

Read = Callable[[str, str], Awaitable[Record | None]]


class ChangeNotifier:
    """One bell a waiter, filed under what it waits for."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[Name, set[asyncio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __contains__(self, name: Name) -> bool:
        return name in self._waiters

    @contextmanager
    def subscribe(self, name: Name) -> Iterator[asyncio.Event]:
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
        for bell in self._waiters.get(name, ()):
            bell.set()

    def notify_all(self) -> None:
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
    patience: float | None = None,
) -> Record | None:
    """`Store.changed` for a bell that is already hung: read, wait for the bell, read again.

    `patience`: read again after that many seconds though no bell rang (a notice can be lost). An expiring record
    is looked at when it ends.
    """
    deadline = time.monotonic() + timeout
    while True:
        changed.clear()
        record = await read(*name)
        left = deadline - time.monotonic()
        if record is None or record.version != version or left <= 0:
            return record
        pause = left if patience is None else min(left, patience)
        if record.expires_at is not None:
            pause = min(pause, max(record.expires_at - clock(), 0.001))
        try:
            async with asyncio.timeout(pause):
                await changed.wait()
        except TimeoutError:
            continue
