"""One origin of an upstream: opens connections, and keeps the idle ones and the health of the origin."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from akoya_gateway.config.model import Origin, Upstream
from akoya_gateway.deadline import running_timeout
from akoya_gateway.upstream.errors import UpstreamTimeout, UpstreamUnreachable
from akoya_gateway.upstream.http.connection import Connection

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)

_FIRST_EJECTION = 1.0
_MAX_EJECTION = 30.0
"""Seconds of the first and of the longest ejection. The time doubles with every failure in a row."""
_MAX_CONSECUTIVE_FAILURES = 3
"""Number of consecutive failed requests after which an origin is ejected."""


class PooledOrigin:
    """One origin with its idle connections and its health.

    It is ejected after a failed connect and after several consecutive failed requests. Each ejection is longer than
    the one before, until a response arrives.
    """

    __slots__ = ("consecutive_failures", "ejected_until", "failures", "idle", "key", "origin", "oversends", "tls")

    def __init__(self, key: int, origin: Origin, tls: ssl.SSLContext | None) -> None:
        self.key = key
        self.origin = origin
        self.tls = tls
        self.idle: dict[Connection, None] = {}
        """Idle connections, the most recently used last. A dictionary, so that any of them can be removed in O(1)."""
        self.failures = self.consecutive_failures = 0
        self.ejected_until = 0.0
        self.oversends = False
        """The origin has sent bytes after a bodiless response. Connections are not reused after such responses."""

    def failed(self, now: float) -> None:
        """Eject the origin."""
        self.failures += 1
        self.ejected_until = now + min(_MAX_EJECTION, _FIRST_EJECTION * 2 ** min(self.failures - 1, 10))

    def connected(self) -> None:
        """Record a successful connect.

        It ends an ejection only if no requests have failed: some broken origins accept connections but never respond.
        """
        if not self.consecutive_failures:
            self.record_response()

    def record_failure(self, now: float) -> None:
        """Record a failed request."""
        self.consecutive_failures += 1
        if self.consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
            self.failed(now)

    def record_response(self) -> None:
        """Record a response, which resets the failure counters and ends an ejection."""
        self.failures = self.consecutive_failures = 0
        self.ejected_until = 0.0

    async def connect(self, make: Callable[[], _Protocol], upstream: Upstream) -> _Protocol:
        """Open a connection, with the timeout and the TLS server name of the upstream.

        Raises:
            UpstreamTimeout: Connecting took too long.
            UpstreamUnreachable: The origin could not be connected to.
        """
        loop, origin = asyncio.get_running_loop(), self.origin
        name = upstream.tls.server_name or origin.host if self.tls is not None else None
        facts = {"address": str(origin)}  # Only for the log: clients see the detail.
        try:
            async with running_timeout(upstream.connect_timeout):
                if origin.path is not None:
                    _, protocol = await loop.create_unix_connection(
                        make, origin.path, ssl=self.tls, server_hostname=name
                    )
                else:
                    transport, protocol = await loop.create_connection(
                        make, origin.host, origin.port, ssl=self.tls, server_hostname=name
                    )
                    raw = transport.get_extra_info("socket")
                    if raw is not None:
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except TimeoutError:
            raise UpstreamTimeout("the upstream took too long to accept a connection", facts=facts) from None
        except ssl.SSLError as error:
            # Without the host name that follows the comma, because clients see the text.
            reason = getattr(error, "verify_message", "").partition(",")[0] or error.reason or "handshake failed"
            raise UpstreamUnreachable(f"no TLS with the upstream: {reason}", facts=facts) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UpstreamUnreachable(f"no connection to the upstream: {reason}", facts=facts) from error
        return protocol
