"""Deadlines that count only the time in which this process could receive a response.

A refresh token is spent once its request has been sent, and its successor is in the response. A stopped process
(SIGSTOP), a suspended machine or a blocked event loop must not be mistaken for a provider, a store or an upstream that
does not respond. After such a pause the response is already in the socket, but an ordinary timer is overdue and would
cancel the read in the same iteration of the event loop that would deliver the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from akoya_gateway.tasks import cancel_until_done

SLICES = 16
"""Number of slices into which the time is divided. Each starts while the loop runs, so a pause costs at most one slice.
"""
POLLS = 256
"""Iterations of the event loop after the last slice, each of which polls for I/O without blocking.

They are needed if the pause came in the last slice. They are enough to read everything that the kernel has buffered,
also through TLS and in several reads, and take milliseconds.
"""

T = TypeVar("T")


async def finishes_within(seconds: float, task: asyncio.Task[Any]) -> bool:
    """Wait until the task is done, or for `seconds` in which the event loop ran. Return True if it is done."""
    for _ in range(SLICES):
        await asyncio.wait((task,), timeout=seconds / SLICES)
        if task.done():
            return True
    for _ in range(POLLS):
        await asyncio.sleep(0)
        if task.done():
            return True
    return False


async def within(seconds: float, work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Return the result of `work`, or cancel it after `seconds` in which the event loop ran.

    If `work` ends with a result or an exception after it was cancelled, that is returned or raised.

    Raises:
        TimeoutError: The time is over.
    """
    task = work if isinstance(work, asyncio.Task) else asyncio.get_running_loop().create_task(work)
    try:
        if await finishes_within(seconds, task):
            return task.result()
    finally:
        await cancel_until_done(task)
    if task.cancelled():
        raise TimeoutError
    return task.result()


class running_timeout:  # noqa: N801  # a context manager used like `asyncio.timeout`
    """Cancel the block after `seconds` in which the event loop ran. Otherwise the same as `asyncio.timeout`.

    Raises:
        TimeoutError: The block took longer.
    """

    __slots__ = ("_handle", "_left", "_loop", "_slice", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / SLICES
        self._left = SLICES + POLLS
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._handle: asyncio.Handle = self._loop.call_later(self._slice, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, fault, trace)

    def _tick(self) -> None:
        self._left -= 1
        if self._left > POLLS:
            self._handle = self._loop.call_later(self._slice, self._tick)
        elif self._left:
            self._handle = self._loop.call_soon(self._tick)
        else:
            self._timeout.reschedule(self._loop.time())
