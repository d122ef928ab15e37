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

from akoya_gateway.access.ask import Ask
from akoya_gateway.errors import GatewayError, UserError

CLOSE_CODE = 4401
"""Private use (RFC 6455 section 7.4.2), after HTTP's 401: connect or sign in again."""

Close = Callable[[int], Awaitable[None]]
StillAdmitted = Callable[[Ask, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class OpenSocket:
    ask: Ask
    path: str
    close: Close


class Sockets:
    def __init__(self, still_admitted: StillAdmitted, every: float = 2.0) -> None:
        self._still_admitted = still_admitted
        self._every = every
        self._open: set[OpenSocket] = set()
        self._now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, socket: OpenSocket) -> None:
        self._open.add(socket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())

    def remove(self, socket: OpenSocket) -> None:
        self._open.discard(socket)

    def look_now(self) -> None:
        """Something has gone: do not wait for the next round."""
        self._now.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._now.wait(), self._every)
            self._now.clear()
            for socket in tuple(self._open):
                if not await self._good(socket):
                    self.remove(socket)
                    with contextlib.suppress(Exception):  # The peer may be gone already; that was the aim.
                        await socket.close(CLOSE_CODE)

    async def _good(self, socket: OpenSocket) -> bool:
        try:
            return await self._still_admitted(socket.ask, socket.path)
        except UserError:
            return False
        except GatewayError:
            # The store or the provider is away: that is no reason to cut anybody off.
            return True
