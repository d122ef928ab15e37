"""A pause of this process does not count towards a deadline."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from akoya_gateway.deadline import running_timeout, within


async def test_deadline_passes_in_time_where_nothing_pauses() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await within(0.2, asyncio.sleep(30))
    assert 0.19 < time.monotonic() - started < 20


async def test_result_or_an_error_within_the_deadline_is_passed_on() -> None:
    async def failing() -> None:
        raise TimeoutError("of the work")

    assert await within(5.0, asyncio.sleep(0.01, "result")) == "result"
    with pytest.raises(TimeoutError, match="of the work"):
        await within(5.0, failing())


async def test_work_that_ends_after_it_was_cancelled_counts() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "result"
        return ""

    assert await within(0.05, stubborn()) == "result"


async def test_cancellation_ends_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    waiting = asyncio.create_task(within(30.0, work()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_timeout_ignores_a_pause_and_passes_in_time_otherwise() -> None:
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    loop = asyncio.get_running_loop()

    def block() -> None:
        writing.send(b"x")
        time.sleep(0.6)

    loop.call_later(0.1, block)
    async with running_timeout(0.5):
        assert await loop.sock_recv(reading, 1) == b"x"
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with running_timeout(0.2):
            await loop.sock_recv(reading, 1)
    assert time.monotonic() - started > 0.19
    reading.close()
    writing.close()


async def test_timeout_passes_on_an_error_a_result_and_a_cancellation() -> None:
    with pytest.raises(TimeoutError, match="of the block"):
        async with running_timeout(5.0):
            raise TimeoutError("of the block")

    async def work() -> None:
        async with running_timeout(30.0):
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
