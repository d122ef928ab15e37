"""WebSockets outlive the decision that opened them, so the decision is made again while they are open.

Every few seconds, and at once when a grant goes in this process, each socket's request is put to the same desk that
admitted it. What would not be admitted now is closed: after a disconnect or a logout, here or at another replica,
after the session's end, after a reload that changed the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.log import logger
from akoya_gateway.tasks import cancel_and_wait

CLOSE_CODE = 4401
"""Private use (RFC 6455 section 7.4.2), after HTTP's 401: connect or sign in again."""

MAX_CONCURRENT_CHECKS = 64
"""Sockets looked at side by side."""

log = logger("akoya_gateway.gateway")

Close = Callable[[int], Awaitable[None]]
StillAdmitted = Callable[[RequestInfo, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class MonitoredConnection:
    ask: RequestInfo
    path: str
    close: Close


class ConnectionMonitor:
    """`patience`: seconds that the look at one socket, or its close, may take. Neither holds up the others."""

    def __init__(self, still_admitted: StillAdmitted, every: float = 2.0, patience: float = 5.0) -> None:
        self._still_admitted = still_admitted
        self._interval = every
        self._check_timeout = patience
        self._connections: set[MonitoredConnection] = set()
        self._now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checks = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._checking: dict[MonitoredConnection, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, socket: MonitoredConnection) -> None:
        self._connections.add(socket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def remove(self, socket: MonitoredConnection) -> None:
        self._connections.discard(socket)

    def check_now(self) -> None:
        """Something has gone: do not wait for the next round."""
        self._now.set()

    async def stop(self) -> None:
        await cancel_and_wait(self._task, *self._checking.values())
        self._checking.clear()

    async def _run(self) -> None:
        while self._connections:
            # Not `wait_for`, which before Python 3.12 loses a cancellation that comes with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._now.wait()
            self._now.clear()
            for socket in self._connections - self._checking.keys():
                self._checking[socket] = asyncio.create_task(self._check(socket))

    async def _check(self, socket: MonitoredConnection) -> None:
        try:
            async with self._checks:
                good = await self._is_admitted(socket)
            if not good:
                self.remove(socket)
                # The peer may be gone already, or not read any more: that was the aim.
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(self._check_timeout):
                        await socket.close(CLOSE_CODE)
        finally:
            self._checking.pop(socket, None)

    async def _is_admitted(self, socket: MonitoredConnection) -> bool:
        try:
            async with asyncio.timeout(self._check_timeout):
                return await self._still_admitted(socket.ask, socket.path)
        except UserError:
            return False
        except (GatewayError, TimeoutError):
            # The store or the provider is away: that is no reason to cut anybody off.
            return True
        except Exception:
            log.exception("connection recheck failed")
            return False
