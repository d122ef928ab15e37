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


class Bells:
    """One bell a waiter, filed under what it waits for."""

    __slots__ = ("_bells",)

    def __init__(self) -> None:
        self._bells: dict[Name, set[asyncio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._bells)

    def __contains__(self, name: Name) -> bool:
        return name in self._bells

    @contextmanager
    def hung(self, name: Name) -> Iterator[asyncio.Event]:
        bell = asyncio.Event()
        self._bells.setdefault(name, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._bells[name]
            bells.remove(bell)
            if not bells:
                del self._bells[name]

    def ring(self, name: Name) -> None:
        for bell in self._bells.get(name, ()):
            bell.set()

    def ring_all(self) -> None:
        for name in self._bells:
            self.ring(name)


async def until_changed(
    read: Read,
    bell: asyncio.Event,
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
        bell.clear()
        record = await read(*name)
        left = deadline - time.monotonic()
        if record is None or record.version != version or left <= 0:
            return record
        pause = left if patience is None else min(left, patience)
        if record.expires_at is not None:
            pause = min(pause, max(record.expires_at - clock(), 0.001))
        try:
            async with asyncio.timeout(pause):
                await bell.wait()
        except TimeoutError:
            continue
