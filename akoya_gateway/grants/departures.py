"""Who wants to know when a grant is disconnected: connections that outlive the request they were let in by."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.book import Book
from akoya_gateway.grants.grant import Grant, GrantState

LOOK = 5.0
"""Seconds between looks at the watched grants, for what other replicas did."""

Farewell = Callable[[Grant], None]

log = structlog.get_logger("akoya_gateway.grants")


class Departures:
    """Callbacks are called in the event loop, must not block, and what they raise is logged and swallowed."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._listeners: list[Farewell] = []
        self._watched: dict[str, list[Farewell]] = {}
        self._look: asyncio.Task[None] | None = None

    def on_gone(self, farewell: Farewell) -> Callable[[], None]:
        self._listeners.append(farewell)
        return lambda: self._listeners.remove(farewell) if farewell in self._listeners else None

    def watch(self, grant: Grant, farewell: Farewell) -> Callable[[], None]:
        self._watched.setdefault(grant.id, []).append(farewell)

        def unwatch() -> None:
            watchers = self._watched.get(grant.id, [])
            if farewell in watchers:
                watchers.remove(farewell)
            if not watchers:
                self._watched.pop(grant.id, None)

        return unwatch

    def tell(self, grant: Grant) -> None:
        """The grant is gone."""
        for farewell in (*self._listeners, *self._watched.pop(grant.id, ())):
            try:
                farewell(grant)
            except Exception:
                log.exception("a listener failed", grant=grant.id)

    def start(self) -> None:
        self._look = asyncio.get_running_loop().create_task(self._run(), name="departures")

    async def stop(self) -> None:
        if self._look is not None:
            self._look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._look

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            for grant_id in list(self._watched):
                with contextlib.suppress(OperatorError):
                    grant = await self._book.get(grant_id)
                    if grant is not None and grant.state is GrantState.REVOKED:
                        self.tell(grant)
