"""A thread that owns a database connection, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from akoya_gateway.errors import StoreUnavailable

C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[C]):
    """Something to do with the connection, and who wants to know."""

    work: Callable[[C], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job gave: a value, or the error that is raised where it was asked for."""

    value: Any = None
    error: BaseException | None = None


Run = Callable[[Sequence[Callable[[C], Any]]], Sequence[JobResult]]


MAX_WAITING = 10_000
"""Jobs in the queue. Each waits no longer than its patience, but is forgotten only when the thread gets to it, and the
call that a broken disk does not answer may take hours."""


class ConnectionThread(Generic[C]):
    """Runs jobs in order on one thread. Jobs that wait at the same moment are handed to `run` together, up to
    `batch` of them; `run` gives one outcome for each.
    """

    def __init__(self, name: str, run: Run[C], batch: int) -> None:
        self._run = run
        self._batch = batch
        self._jobs: queue.SimpleQueue[Job[C] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was asked for, then end the thread."""
        if self._stopped:
            return
        self._stopped = True
        self._jobs.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    async def submit(self, work: Callable[[C], T], timeout: float) -> T:
        """Return what `work` returns. Raises `StoreUnavailable` for whatever it raises, and if it takes longer than
        `timeout` seconds; the work may then still be done. Also, at once and without doing it, if too many wait.
        """
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        if self._jobs.qsize() >= MAX_WAITING:
            raise StoreUnavailable(f"the store does not answer, and {MAX_WAITING} requests wait for it")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put(Job(work, loop, answer))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer within {timeout:g} s") from None
        except StoreUnavailable:
            raise
        except Exception as fault:
            raise StoreUnavailable(f"the store failed ({type(fault).__name__})") from fault

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            last = False
            with contextlib.suppress(queue.Empty):
                while len(jobs) < self._batch:
                    following = self._jobs.get_nowait()
                    if following is None:
                        last = True
                        break
                    jobs.append(following)
            self._run_jobs(jobs)
            if last:
                return

    def _run_jobs(self, jobs: Sequence[Job[C]]) -> None:
        wanted = [job for job in jobs if not job.answer.cancelled()]
        if not wanted:
            return
        try:
            outcomes = self._run([job.work for job in wanted])
        except BaseException as fault:  # the thread must go on: without it every later job would wait in vain
            outcomes = [JobResult(error=StoreUnavailable(f"the store failed ({type(fault).__name__})"))] * len(wanted)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], JobResult]]] = {}
        for job, outcome in zip(wanted, outcomes, strict=True):
            by_loop.setdefault(job.loop, []).append((job.answer, outcome))
        for loop, answers in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to tell
                loop.call_soon_threadsafe(_deliver, answers)


def _deliver(answers: Sequence[tuple[asyncio.Future[Any], JobResult]]) -> None:
    for answer, outcome in answers:
        if answer.done():
            continue
        if outcome.error is not None:
            answer.set_exception(outcome.error)
        else:
            answer.set_result(outcome.value)
