"""Cancelling a coroutine wherever it can be: at its n-th suspension, some turns of the event loop later, or together with
what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cut(Generic[T]):
    """Awaits `work`, and cancels the task it runs in at the suspension number `at`, `turns` of the event loop later. None:
    as what it waits for is done, which is when Python 3.11's `asyncio.wait_for` loses a cancellation."""

    def __init__(self, work: Coroutine[Any, Any, T], at: int, turns: int | None) -> None:
        self._work = work
        self._at = at
        self._turns = turns
        self.done = False
        """There was no such suspension: it came to its end."""

    def __await__(self) -> Generator[Any, Any, T]:
        suspensions = 0
        value: Any = None
        fault: BaseException | None = None
        while True:
            try:
                waited = self._work.send(value) if fault is None else self._work.throw(fault)
            except StopIteration as end:
                self.done = suspensions <= self._at
                return end.value  # type: ignore[no-any-return]
            if suspensions == self._at:
                self._cut(waited)
            suspensions += 1
            value = fault = None
            try:
                value = yield waited
            except BaseException as thrown:
                fault = thrown

    def _cut(self, waited: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._turns is None and isinstance(waited, asyncio.Future):
            # Before the task's own callback: it has not yet been woken.
            waited.add_done_callback(lambda _: task.cancel())
        else:
            _cancel(task, self._turns or 0)


def _cancel(task: asyncio.Task[Any], turns: int) -> None:
    if turns:
        asyncio.get_running_loop().call_soon(_cancel, task, turns - 1)
    else:
        task.cancel()


async def cut(work: Coroutine[Any, Any, T], at: int, turns: int | None) -> tuple[bool, T | None]:
    """Whether `work` has no such suspension, and what it gave."""
    cutting = Cut(work, at, turns)

    async def run() -> T:
        return await cutting

    task = asyncio.create_task(run())
    done, _ = await asyncio.wait({task}, timeout=30)
    assert done, "it neither ended nor went on"
    return cutting.done, None if task.cancelled() else task.result()
