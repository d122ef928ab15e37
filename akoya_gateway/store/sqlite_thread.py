"""A thread that owns a database connection, so that the event loop never blocks on disk I/O."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from akoya_gateway.deadline import running_timeout
from akoya_gateway.errors import StoreUnavailable

C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[C]):
    """A function to call with the connection, and the future of its caller."""

    work: Callable[[C], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of a job: a value, or the error that its caller raises."""

    value: Any = None
    error: BaseException | None = None


Run = Callable[[Sequence[Callable[[C], Any]]], Sequence[JobResult]]


MAX_WAITING = 10_000
"""Maximum number of jobs in the queue.

A caller stops waiting after its timeout, but the job stays in the queue until the thread gets to it. A call that hangs
on a broken disk may take hours.
"""


class ConnectionThread(Generic[C]):
    """Runs jobs in order on one thread.

    Jobs that wait at the same moment are passed to `run` together, at most `batch` of them. `run` returns one result
    per job.
    """

    def __init__(self, name: str, run: Run[C], batch: int) -> None:
        self._run = run
        self._batch = batch
        self._jobs: queue.SimpleQueue[Job[C] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Run the queued jobs, then stop the thread."""
        if self._stopped:
            return
        self._stopped = True
        self._jobs.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    async def submit(self, work: Callable[[C], T], timeout: float) -> T:
        """Run `work` on the thread and return its result.

        Raises:
            StoreUnavailable: `work` raised an exception; or it took longer than `timeout` seconds, in which case it may
                still be done; or `MAX_WAITING` jobs are queued, in which case it is rejected at once and not done.
        """
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        if self._jobs.qsize() >= MAX_WAITING:
            raise StoreUnavailable(f"the store does not respond, and {MAX_WAITING} requests are waiting for it")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(Job(work, loop, future))
        try:
            async with running_timeout(timeout):
                return await future
        except TimeoutError:
            raise StoreUnavailable(f"the store did not respond within {timeout:g} s") from None
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
        pending = [job for job in jobs if not job.future.cancelled()]
        if not pending:
            return
        try:
            outcomes = self._run([job.work for job in pending])
        except BaseException as fault:  # the thread must survive: otherwise every later job would time out
            outcomes = [JobResult(error=StoreUnavailable(f"the store failed ({type(fault).__name__})"))] * len(pending)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], JobResult]]] = {}
        for job, outcome in zip(pending, outcomes, strict=True):
            by_loop.setdefault(job.loop, []).append((job.future, outcome))
        for loop, results in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, so its callers are gone
                loop.call_soon_threadsafe(_deliver, results)


def _deliver(results: Sequence[tuple[asyncio.Future[Any], JobResult]]) -> None:
    for future, outcome in results:
        if future.done():
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)
