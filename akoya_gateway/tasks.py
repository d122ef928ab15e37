"""Background tasks: kept running after an unexpected exception, and cancelled when the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from akoya_gateway.log import logger

RETRY_INTERVAL = 0.2
"""Seconds until a task that has not ended is cancelled once more."""

FIRST_RESTART, LONGEST_RESTART = 0.5, 60.0
"""Seconds until work that raised is started again: at first, and at most."""

log = logger("akoya_gateway")


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it returns, and start it again after every exception.

    A background task that ends with an exception ends without a trace: nothing awaits it, and what it did is not done
    any more until the process is restarted. The pauses double while it keeps raising.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_RESTART
    while True:
        began = loop.time()
        try:
            return await work()
        except Exception:
            log.exception("background task failed", task=name)
        if loop.time() - began > LONGEST_RESTART:
            pause = FIRST_RESTART
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_RESTART)


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel them until they have ended. Raises nothing of theirs.

    Once is not enough: Python 3.11's `asyncio.wait_for` loses a cancellation that comes just as what it waits for is
    done, and the Redis client sends its commands through it. A task that goes round for ever would then do so.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=RETRY_INTERVAL)
