"""Whether this process, and all of them together, should get requests."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field

from akoya_gateway.observability.redaction import redact_text

CHECK_TIMEOUT = 2.0
"""Seconds the checks may take together."""
CACHE_SECONDS = 0.5
"""Seconds for which an answer is given again, so that a busy prober costs the store nothing."""

Check = Callable[[], Awaitable[Sequence[str]]]
"""Says what keeps this from serving, each with what to do; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """`problems` keep it from being ready; `notes` do not: one bank that is down must not take the app away from the
    users of all the others."""

    pid: int
    ready: bool
    draining: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def encoded(self) -> str:
        return json.dumps(asdict(self))


def decoded(text: str) -> Report:
    return Report(**json.loads(text))


class Readiness:
    """`check` gives the problems, `notes` what is worth knowing."""

    def __init__(
        self,
        check: Check,
        notes: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check = check
        self._notes = notes
        self._clock = clock
        self._last: tuple[float, Report] | None = None
        self._running: asyncio.Task[Report] | None = None
        self.draining = False

    def drain(self) -> None:
        """From now on not ready, whatever the checks say."""
        self.draining = True
        self._last = None

    async def report(self) -> Report:
        """Never raises; one round of checks serves all who ask meanwhile."""
        if self._last is not None and self._clock() - self._last[0] < CACHE_SECONDS:
            return self._last[1]
        if self._running is None:
            self._running = asyncio.ensure_future(self._run_check())
            self._running.add_done_callback(self._on_checked)
        return await asyncio.shield(self._running)

    def _on_checked(self, task: asyncio.Task[Report]) -> None:
        self._running = None
        if not task.cancelled() and task.exception() is None:
            self._last = (self._clock(), task.result())

    async def _run_check(self) -> Report:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                problems = [redact_text(str(each)) for each in await self._check()]
        except TimeoutError:
            problems = [f"the checks took more than {CHECK_TIMEOUT:g} s: is the store slow or out of reach?"]
        except Exception as error:  # a check that fails to check has found something
            problems = [f"the checks failed: {redact_text(repr(error))}"]
        if self.draining:
            problems.insert(0, "draining: this process was asked to stop")
        return Report(os.getpid(), not problems, self.draining, problems, self._current_notes())

    def _current_notes(self) -> list[str]:
        try:
            return [redact_text(str(each)) for each in self._notes()]
        except Exception as error:  # a note is worth no failure
            return [f"no notes: {redact_text(repr(error))}"]
