"""The thread behind SQLite, while the disk blocks it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.sqlite_thread import MAX_WAITING, ConnectionThread, JobResult


async def test_hanging_disk_fills_no_memory_and_abandoned_jobs_are_skipped() -> None:
    stuck = threading.Event()
    done: list[str] = []

    def run(works: Sequence[Callable[[None], str]]) -> list[JobResult]:
        stuck.wait()
        done.extend(work(None) for work in works)
        return [JobResult(None) for _ in works]

    worker: ConnectionThread[None] = ConnectionThread("stuck", run, batch=16)
    worker.start()
    operations = [asyncio.create_task(worker.submit(lambda _: "early", 0.5)) for _ in range(MAX_WAITING + 100)]
    refused = await asyncio.gather(*operations, return_exceptions=True)
    assert {type(each) for each in refused} == {StoreUnavailable}
    assert any("waiting for it" in str(each) for each in refused)
    with pytest.raises(StoreUnavailable, match="waiting for it"):
        await worker.submit(lambda _: "too many", 30)
    stuck.set()
    while True:
        try:
            await worker.submit(lambda _: "late", 30)
            break
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    await worker.stop()
    assert done.count("early") <= 16, "only jobs that the thread had already started"
    assert done[-1] == "late"


async def test_pause_of_the_event_loop_is_no_fault_of_the_store() -> None:
    """The thread has finished during the pause, so the write must not be reported as failed."""
    started = threading.Event()

    def run(works: Sequence[Callable[[None], str]]) -> list[JobResult]:
        started.set()
        time.sleep(0.3)
        return [JobResult(work(None)) for work in works]

    worker: ConnectionThread[None] = ConnectionThread("slow", run, batch=16)
    worker.start()
    written = asyncio.create_task(worker.submit(lambda _: "written", 0.6))
    await asyncio.sleep(0)
    assert started.wait(30)
    time.sleep(1.0)
    assert await written == "written"
    await worker.stop()
