"""Connections to Redis, whose timeouts count only the time in which the event loop ran (see `akoya_gateway.deadline`).

The client library's own timeouts are overdue after a pause of this process. They would report a write as failed whose
response is already in the socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from akoya_gateway.deadline import running_timeout
from akoya_gateway.store.redis.server_errors import error_code
from akoya_gateway.store.redis.url import RedisURL


class _PauseTolerant(AbstractConnection):
    """Replaces `socket_timeout` by a timeout that ignores pauses, for responses and for writes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seconds, self.socket_timeout = self.socket_timeout, None
        # Do not send CLIENT SETINFO. A server with too many clients sends an error and closes the connection: a second
        # write would fail before that error is read.
        self.driver_info = None

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None, **options: Any) -> Any:
        if timeout is not None:  # the subscription's own
            return await super().read_response(disable_decoding, timeout, **options)
        async with self._limit():
            try:
                return await super().read_response(disable_decoding, **options)
            except ResponseError as refusal:
                if error_code(refusal) == "DENIED":
                    # Protected mode: the server closes the connection, and no response to a later command follows.
                    raise RedisConnectionError from refusal
                raise

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


def client_for(url: RedisURL, host: str, port: int, max_connections: int) -> Redis:
    """Return a client for one server, with the options of the URL."""
    settings = options(url) | {"host": host, "port": port, "db": url.database}
    settings.pop("ssl", None)
    pool = BlockingConnectionPool(
        max_connections=max_connections, timeout=url.timeout, connection_class=connection_class(url), **settings
    )
    return Redis.from_pool(pool)


def connection_class(url: RedisURL) -> type[PlainConnection | TLSConnection]:
    """Return the class of connections to servers that are not found through sentinels."""
    return TLSConnection if url.tls else PlainConnection


def options(url: RedisURL) -> dict[str, Any]:
    """Return the options of the client library for this URL, without host, port and database."""
    settings: dict[str, Any] = {
        "socket_timeout": url.timeout,
        "socket_connect_timeout": url.timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "username": url.username,
        "password": url.password.reveal() if url.password else None,
    }
    if url.tls:
        settings |= {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": url.ca,
            "ssl_certfile": url.certificate,
            "ssl_keyfile": url.key,
        }
    return settings
