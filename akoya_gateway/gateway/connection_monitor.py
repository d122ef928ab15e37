"""Re-checks the admission of open WebSockets and streams, which outlive the decision that admitted them.

Each connection's request is decided again by the same access gate every few seconds, and at once when a grant is
disconnected in this process. A connection that would no longer be admitted is closed: after a disconnect or a logout,
in this replica or another, after the end of the session, and after a reload that changed the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.deadline import running_timeout
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.log import logger
from akoya_gateway.tasks import cancel_and_wait

CLOSE_CODE = 4401
"""Close code for private use (RFC 6455 section 7.4.2), modelled on HTTP's 401: connect or sign in again."""

MAX_CONCURRENT_CHECKS = 64
"""Maximum number of connections checked concurrently."""

log = logger("akoya_gateway.gateway")

Close = Callable[[int], Awaitable[None]]
StillAdmitted = Callable[[RequestInfo], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class MonitoredConnection:
    """An open connection: its request, and a callback that closes it with a close code."""

    request: RequestInfo
    close: Close


class ConnectionMonitor:
    """Checks open connections periodically and closes those that are no longer admitted."""

    def __init__(self, still_admitted: StillAdmitted, every: float = 2.0, check_timeout: float = 5.0) -> None:
        """Initialize the monitor. The background task starts with the first connection.

        Args:
            still_admitted: Decides whether a request is still admitted.
            every: Seconds between two rounds of checks.
            check_timeout: Timeout in seconds for the check of one connection, and for closing it. A slow one does not
                delay the others.
        """
        self._still_admitted = still_admitted
        self._interval = every
        self._check_timeout = check_timeout
        self._connections: set[MonitoredConnection] = set()
        self._now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checks = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._checking: dict[MonitoredConnection, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, socket: MonitoredConnection) -> None:
        """Monitor this connection until `remove` is called."""
        self._connections.add(socket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def remove(self, socket: MonitoredConnection) -> None:
        """Stop monitoring this connection."""
        self._connections.discard(socket)

    def check_now(self) -> None:
        """Re-check all connections now, for example after a disconnect."""
        self._now.set()

    async def stop(self) -> None:
        """Cancel all checks and wait until they have ended."""
        await cancel_and_wait(self._task, *self._checking.values())
        self._checking.clear()

    async def _run(self) -> None:
        while self._connections:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that arrives together with the event.
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
                # The peer may already be disconnected or not reading any more. Both are acceptable: the connection was
                # to be closed.
                with contextlib.suppress(Exception):
                    async with running_timeout(self._check_timeout):
                        await socket.close(CLOSE_CODE)
        finally:
            self._checking.pop(socket, None)

    async def _is_admitted(self, socket: MonitoredConnection) -> bool:
        try:
            async with running_timeout(self._check_timeout):
                return await self._still_admitted(socket.request)
        except UserError:
            return False
        except (GatewayError, TimeoutError):
            # The store or the provider is unavailable. That is no reason to close a connection.
            return True
        except Exception:
            log.exception("connection recheck failed")
            return False
