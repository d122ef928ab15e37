"""Readiness of this process: runs the checks, caches the result and encodes it for other processes."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from akoya_gateway.deadline import finishes_within, running_timeout
from akoya_gateway.observability.redaction import redact_text

CHECK_TIMEOUT = 8.0
"""Maximum seconds for all checks together.

More than twice the time that SQLite waits for a lock (3 s), because a check may wait behind another write: readiness
then has the store's own reason. Requests wait as long for the store before they get 503.
"""
RESPONSE_TIMEOUT = 0.8
"""Maximum seconds for a report. Until the running checks are done, it repeats the result of the ones before.

Less than the second that a probe waits by default (Kubernetes).
"""
CACHE_SECONDS = 0.5
"""Seconds for which a report is reused, so that frequent probes put no load on the store."""

Check = Callable[[], Awaitable[Sequence[str]]]
"""Returns the problems that keep the process from serving, each with its remedy. Empty if there are none."""


@dataclass(frozen=True, slots=True)
class Report:
    """Readiness of one process."""

    pid: int
    ready: bool
    draining: bool = False
    problems: list[str] = field(default_factory=list)
    """Reasons why the process is not ready."""
    notes: list[str] = field(default_factory=list)
    """Remarks that do not affect readiness: one bank that is down must not make the app unavailable to the users of
    all other banks."""

    def encoded(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self))


def decoded(text: str) -> Report:
    """Return the report that `Report.encoded` has encoded."""
    return Report(**json.loads(text))


class Readiness:
    """Run the checks and build the report. `check` returns the problems, `notes` returns the notes."""

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
        """Report not ready from now on, regardless of the checks."""
        self.draining = True
        self._last = None

    async def report(self) -> Report:
        """Return a report. Concurrent callers share one round of checks. A failing check is reported, not raised.

        A store that is locked for a moment must not take the process out of service. Only the end of the checks decides
        whether it is ready.
        """
        if self._last is not None and self._clock() - self._last[0] < CACHE_SECONDS:
            return self._last[1]
        if self._running is None:
            self._running = asyncio.ensure_future(self._run_check())
            self._running.add_done_callback(self._on_checked)
        running = self._running
        return running.result() if await finishes_within(RESPONSE_TIMEOUT, running) else self._undecided()

    def _undecided(self) -> Report:
        """Return the previous report with a note. If there is none, the process is not ready yet."""
        seconds = f"{RESPONSE_TIMEOUT:g} s"
        text = f"the checks have taken more than {seconds} so far: is the store locked, slow or unreachable?"
        if self._last is not None:
            return replace(self._last[1], notes=[*self._last[1].notes, text])
        return self._report([text])

    def _on_checked(self, task: asyncio.Task[Report]) -> None:
        self._running = None
        if not task.cancelled() and task.exception() is None:
            self._last = (self._clock(), task.result())

    async def _run_check(self) -> Report:
        try:
            async with running_timeout(CHECK_TIMEOUT):
                problems = [redact_text(str(each)) for each in await self._check()]
        except TimeoutError:
            problems = [f"the checks took more than {CHECK_TIMEOUT:g} s: is the store locked, slow or unreachable?"]
        except Exception as error:  # a check that raises is reported as a problem
            problems = [f"the checks failed: {redact_text(repr(error))}"]
        return self._report(problems)

    def _report(self, problems: list[str]) -> Report:
        if self.draining:
            problems.insert(0, "draining: this process was asked to stop")
        return Report(os.getpid(), not problems, self.draining, problems, self._current_notes())

    def _current_notes(self) -> list[str]:
        try:
            return [redact_text(str(each)) for each in self._notes()]
        except Exception as error:  # notes must not make the report fail
            return [f"notes not available: {redact_text(repr(error))}"]
