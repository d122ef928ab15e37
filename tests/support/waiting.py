"""Waiting for conditions, with one time limit that is long enough for a busy machine."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import time
from collections.abc import Callable

import httpx
import pytest
import redis

WITHIN = 30.0
"""Seconds after which a test gives up."""

PAUSE = 0.02
"""Seconds between two checks."""

_UNREACHABLE = (ConnectionError, http.client.HTTPException, httpx.TransportError, redis.RedisError)
"""Raised by a condition that asks a process which is starting, stopping or restarting."""


def until(condition: Callable[[], object], what: str = "the condition is true", within: float = WITHIN) -> None:
    """Wait until the condition is true. A condition that cannot reach its server counts as false."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(*_UNREACHABLE):
            if condition():
                return
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain until {what}")
        time.sleep(PAUSE)


async def until_async(
    condition: Callable[[], object], what: str = "the condition is true", within: float = WITHIN
) -> None:
    """As `until`, in an event loop. The condition may return an awaitable."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain until {what}")
        await asyncio.sleep(PAUSE)
