"""What one worker knows of all: its own live figures, and what the others posted a moment ago."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from akoya_gateway.observability.health import Health, Report, decoded
from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.metrics_aggregation import Totals
from akoya_gateway.observability.shared_memory import Board, Posted

INTERVAL = 1.0
"""Seconds between posts: how old the figures of other workers may be."""
SILENT = 10.0
"""Seconds without a post after which a worker is said to be stuck."""


class Crew:
    """`board` None: this is the only process. Otherwise slot `place` is ours and the last slot is the dead ones'."""

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        log: Log,
        *,
        board: Board | None = None,
        place: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._log = log
        self._board = board
        self._place = place
        self._clock = clock
        self._too_long = False

    async def keep_posting(self) -> None:
        """Runs until cancelled. It is the worker's heartbeat, too: a stuck event loop posts nothing."""
        while self._board is not None:
            self.post(await self._health.report())
            await asyncio.sleep(INTERVAL)

    def post(self, report: Report) -> None:
        if self._board is None:
            return
        totals = Totals()
        totals.add_registry(self._metrics.registry)
        content = packed(report, totals.snapshot())
        if not self._board.post(self._place, self._clock(), os.getpid(), content):
            if not self._too_long:
                self._log.error("too many metrics to be added up over workers", bytes=len(content))
            self._too_long = True
            self._board.post(self._place, self._clock(), os.getpid(), packed(report, b"[]"))

    def metrics_text(self) -> bytes:
        """Everybody's figures, the dead ones' included."""
        totals = Totals()
        totals.add_registry(self._metrics.registry)
        for place, posted in self._others():
            metrics = unpacked(posted)[1] if place != self._graveyard else posted.content
            totals.add(metrics)
        return totals.text()

    async def reports(self) -> list[Report]:
        """Ours first. A worker that is stuck is one with a problem; one that is being replaced is not there."""
        found = [await self._health.report()]
        for place, posted in self._others():
            if place == self._graveyard:
                continue
            silent = self._clock() - posted.at
            if silent > SILENT:
                problem = f"worker {posted.pid} has been stuck for {silent:.0f} s; it will be replaced"
                found.append(Report(posted.pid, ready=False, problems=[problem]))
            else:
                found.append(unpacked(posted)[0])
        return found

    @property
    def _graveyard(self) -> int:
        return self._board.slots - 1 if self._board is not None else -1

    def _others(self) -> list[tuple[int, Posted]]:
        if self._board is None:
            return []
        posted = ((place, self._board.read(place)) for place in range(self._board.slots) if place != self._place)
        return [(place, each) for place, each in posted if each is not None]


def packed(report: Report, metrics: bytes) -> bytes:
    return report.encoded().encode() + b"\n" + metrics


def unpacked(posted: Posted) -> tuple[Report, bytes]:
    report, _, metrics = posted.content.partition(b"\n")
    return decoded(report.decode()), metrics


def bury(board: Board, place: int) -> None:
    """The worker at `place` is dead: keep what it counted, so that no counter ever goes back, and free the place."""
    last = board.read(place)
    if last is None:
        return
    graveyard = board.slots - 1
    totals = Totals()
    before = board.read(graveyard)
    if before is not None:
        totals.add(before.content)
    totals.add(unpacked(last)[1])
    board.post(graveyard, last.at, 0, totals.snapshot(lasting=True))
    board.clear(place)


def last_posts(board: Board) -> dict[int, tuple[int, float]]:
    """Of every living place: who posted last, and when."""
    posted = {place: board.read(place) for place in range(board.slots - 1)}
    return {place: (each.pid, each.at) for place, each in posted.items() if each is not None}
