"""Background tasks: restart them after an unexpected exception, and cancel them when the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from akoya_gateway.log import logger

RETRY_INTERVAL = 0.2
"""Seconds after which a task that is still running is cancelled again."""

FIRST_RESTART_PAUSE, MAX_RESTART_PAUSE = 0.5, 60.0
"""Initial and maximum delay, in seconds, before work that raised is restarted."""

log = logger("akoya_gateway")


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it returns, and restart it after every exception.

    Without this, a background task that raises stops unnoticed, because nothing awaits it, and its work is not done
    until the process is restarted. The delay doubles with every exception, and is reset after a run that was longer
    than the maximum delay.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_RESTART_PAUSE
    while True:
        began = loop.time()
        try:
            return await work()
        except Exception:
            log.exception("background task failed", task=name)
        if loop.time() - began > MAX_RESTART_PAUSE:
            pause = FIRST_RESTART_PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_RESTART_PAUSE)


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks until all have finished. Their exceptions are logged, not raised. None is ignored."""
    given = [task for task in tasks if task is not None]
    await cancel_until_done(*given)
    for task in given:
        # An exception that nobody retrieves is logged by asyncio, but only when the task is garbage-collected.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("cancelled task failed", task=task.get_name(), exc_info=error)


async def cancel_until_done(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks until all have finished, and leave their results and exceptions to the caller.

    One cancellation is not enough: Python 3.11's `asyncio.wait_for` loses a cancellation that arrives just as the
    awaited operation completes, and the Redis client sends its commands through it. A task with an endless loop would
    then never stop.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=RETRY_INTERVAL)
