"""Tests of stopping background tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from akoya_gateway.tasks import cancel_and_wait


async def test_exceptions_of_cancelled_tasks_are_logged_at_once_and_not_by_the_garbage_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unretrieved: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))

    async def fails_when_cancelled() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("while stopping") from None

    async def fails() -> None:
        raise KeyError("earlier")

    async def stops() -> None:
        await asyncio.sleep(60)

    works = (fails_when_cancelled, fails, stops)
    tasks = [asyncio.create_task(work(), name=work.__name__) for work in works]
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING, "akoya_gateway"):
        await cancel_and_wait(*tasks, None)
    logged = {record.getMessage(): repr(record.exc_info[1]) for record in caplog.records if record.exc_info}
    assert logged == {
        "cancelled task failed task=fails_when_cancelled": "ValueError('while stopping')",
        "cancelled task failed task=fails": "KeyError('earlier')",
    }
    tasks.clear()
    gc.collect()
    assert unretrieved == []
