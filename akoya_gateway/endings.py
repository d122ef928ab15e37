"""How tasks that run for ever are brought to their end."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN = 0.2
"""Seconds until a task that has not ended is cancelled once more."""


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel them until they have ended. Raises nothing of theirs.

    Once is not enough: Python 3.11's `asyncio.wait_for` loses a cancellation that comes just as what it waits for is
    done, and the Redis client sends its commands through it. A task that goes round for ever would then do so.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
