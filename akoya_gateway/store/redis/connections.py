"""Connections to Redis whose timeouts count only the time in which the event loop ran (see `akoya_gateway.deadline`).

The client library's own timeouts are overdue after a pause of this process. They would report a write as failed whose
response is already in the socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

from akoya_gateway.deadline import running_timeout


class _PauseTolerant(AbstractConnection):
    """Replaces `socket_timeout` by a timeout that ignores pauses, for responses and for writes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seconds, self.socket_timeout = self.socket_timeout, None

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None, **options: Any) -> Any:
        if timeout is not None:  # the subscription's own
            return await super().read_response(disable_decoding, timeout, **options)
        async with self._limit():
            return await super().read_response(disable_decoding, **options)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        async with self._limit():
            await super().send_packed_command(command, check_health)

    @asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        """Cancel the block when the time is over, upon which the library closes the connection."""
        assert self._seconds is not None
        try:
            async with running_timeout(self._seconds):
                yield
        except TimeoutError:
            raise RedisTimeoutError("no response from the server in time") from None


class PlainConnection(_PauseTolerant, Connection):
    """A connection to one server."""


class TLSConnection(_PauseTolerant, SSLConnection):
    """A connection to one server over TLS."""


class PrimaryConnection(_PauseTolerant, SentinelManagedConnection):
    """A connection to the primary that the sentinels name."""


class TLSPrimaryConnection(_PauseTolerant, SentinelManagedSSLConnection):
    """A connection over TLS to the primary that the sentinels name."""
