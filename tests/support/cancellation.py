"""Helpers that cancel a coroutine at any point: at its n-th suspension, some event loop iterations later, or together
with the completion of what it awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cut(Generic[T]):
    """Awaits `work` and cancels the current task `turns` event loop iterations after suspension number `at`.

    If `turns` is None, the task is cancelled when the awaited future completes. Python 3.11's `asyncio.wait_for` loses a
    cancellation at that moment.
    """

    def __init__(self, work: Coroutine[Any, Any, T], at: int, turns: int | None) -> None:
        self._work = work
        self._at = at
        self._turns = turns
        self.done = False
        """True if `work` finished before suspension `at`."""

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
            # This callback runs before the task's own wakeup callback, so the task has not resumed yet.
            waited.add_done_callback(lambda _: task.cancel())
        else:
            _cancel(task, self._turns or 0)


def _cancel(task: asyncio.Task[Any], turns: int) -> None:
    if turns:
        asyncio.get_running_loop().call_soon(_cancel, task, turns - 1)
    else:
        task.cancel()


async def cut(work: Coroutine[Any, Any, T], at: int, turns: int | None) -> tuple[bool, T | None]:
    """Cancel `work` at suspension `at`. Return whether it finished before that suspension, and its result."""
    cutting = Cut(work, at, turns)

    async def run() -> T:
        return await cutting

    task = asyncio.create_task(run())
    done, _ = await asyncio.wait({task}, timeout=30)
    assert done, "the work hangs after the cancellation"
    return cutting.done, None if task.cancelled() else task.result()


async def ended(tasks: Callable[[], set[asyncio.Task[Any]]]) -> None:
    """Wait until the function returns no task but the current one."""
    async with asyncio.timeout(30):
        while tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0.005)
