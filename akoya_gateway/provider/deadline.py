"""A deadline that counts only the time in which this process could receive a response.

A refresh token is spent once its request has been sent, and its successor is in the response. A stopped process
(SIGSTOP), a suspended machine or a blocked event loop must not be mistaken for a provider that does not respond:
afterwards the response is in the socket, and an ordinary timer, which is overdue, cancels the read in the same turn of
the loop that would deliver it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from akoya_gateway.tasks import cancel_and_wait

SLICES = 16
"""The time is waited for in slices, each of which starts when the loop runs, so that a pause costs at most one."""
POLLS = 256
"""Turns of the loop after the last slice, each of which polls for I/O and does not block: enough to read all that the
kernel holds, through TLS and several reads, if the pause came in the last slice. They take milliseconds."""

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it and raise `TimeoutError` after `seconds` in which the loop ran.

    A result or an exception that `work` ends with after it has been cancelled counts.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        for _ in range(SLICES):
            await asyncio.wait((task,), timeout=seconds / SLICES)
            if task.done():
                return task.result()
        for _ in range(POLLS):
            await asyncio.sleep(0)
            if task.done():
                return task.result()
    finally:
        await cancel_and_wait(task)
    if task.cancelled():
        raise TimeoutError
    return task.result()
