"""The pool of connections to the upstream: idle connections, a limit, a queue of waiters and one periodic timer.

There is no timer per request. Every tick, the deadlines of all connections and of the oldest waiters are compared with
the clock. Timeouts are therefore up to two ticks late (`ConnectionPool.tick`, in seconds), but never early.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from akoya_gateway.config.model import Upstream
from akoya_gateway.upstream.errors import ClosedEarly, SlowClient, UpstreamBusy, UpstreamTimeout, UpstreamUnreachable
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.origin import PooledOrigin
from akoya_gateway.upstream.http.response_head_cache import Hides, ResponseHeadCache
from akoya_gateway.upstream.http.tls import client_context

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)

_MIN_UPLOAD_RATE, _UPLOAD_GRACE = 500.0, 20.0
"""Minimum upload rate in bytes per second, and grace period in seconds (the values of Apache's mod_reqtimeout).

An upload that falls further behind is aborted when other requests wait for a connection. If no request waits, an upload
may be slow, because some apps have uploads that take hours.
"""


class ConnectionPool:
    """A pool of connections to the origins of one upstream.

    `get_nowait()` returns an idle connection, and `acquire()` waits for one. A connection returns to the pool by itself
    when its response is complete (see `interfaces.ConnectionOwner`).
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, upstream: Upstream, *, hides: Hides | None = None) -> None:
        """Create the pool. No connection is opened yet.

        Args:
            upstream: The configuration of the upstream.
            hides: See `response_head_cache`.

        Raises:
            OSError: A TLS file is missing or cannot be read.
            ssl.SSLError: A TLS file is invalid.
        """
        self.upstream = upstream
        self.wait_timeout: float = upstream.connect_timeout
        """Seconds to wait for a free connection."""
        self.write_timeout: float = upstream.read_timeout
        self.idle_timeout = 50.0
        """Seconds after which an idle connection is closed."""
        self.tick = min(0.25, max(0.02, min(upstream.connect_timeout, upstream.read_timeout) / 8))
        self.now = 0.0
        https = any(origin.scheme == "https" for origin in upstream.origins)
        context = client_context(upstream.tls) if https else None
        self._hosts = tuple(
            PooledOrigin(key, origin, context if origin.scheme == "https" else None)
            for key, origin in enumerate(upstream.origins)
        )
        self._single_host = self._hosts[0] if len(self._hosts) == 1 else None
        self._next_index = 0
        self._head_cache = ResponseHeadCache(hides)
        self._connections: set[Connection] = set()
        self._patient_connections: set[Connection] = set()
        self._connecting = 0
        self._waiters: deque[tuple[float, asyncio.Future[Connection | None]]] = deque()
        self._ticker: asyncio.TimerHandle | None = None
        self._retired = self._closed = False
        self._serving = False
        """True if `_serve_waiters` is scheduled."""

    # -- for callers

    @property
    def size(self) -> int:
        """Number of connections that are open or being opened, without event streams.

        Event streams last as long as WebSockets and would use up the limit, so neither is counted.
        """
        return len(self._connections) + self._connecting - len(self._patient_connections)

    @property
    def idle(self) -> int:
        """Number of idle connections."""
        return sum(len(host.idle) for host in self._hosts)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a connection."""
        return len(self._waiters)

    def resting(self) -> list[tuple[str, bool]]:
        """Return each origin, and whether it is ejected because it failed."""
        # Before the first request there is no `_loop`, but then no origin is ejected either.
        return [(str(host.origin), 0 < host.ejected_until > self._loop.time()) for host in self._hosts]

    def get_nowait(self) -> Connection | None:
        """Return the most recently used idle connection of the next origin, or None."""
        if self._waiters:
            return None
        host = self._single_host or self._next_host()
        connection = self._pop(host)
        if connection is not None:
            self._next_index = host.key
        return connection

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Return an idle or a new connection. Callers that have to wait are served in order.

        Args:
            fresh: Do not return a connection that was idle, because this is a retry. After waiting, a connection that
                has just completed a response may be returned.

        Raises:
            UpstreamBusy: No connection became free in time, or the pool is closed.
            UpstreamTimeout: Connecting took too long.
            UpstreamUnreachable: No origin could be connected to.
        """
        self._start()
        if not fresh and not self._waiters:
            connection = self.get_nowait() or (self._pop_any() if self.size >= self.upstream.pool else None)
            if connection is not None:
                return connection
        if self._waiters or self.size >= self.upstream.pool:
            handed = await self._wait()
            if handed is not None:
                if handed.usable:
                    # It has just completed a response, so it is as reliable as a new connection, even for a retry.
                    return handed
                self._connecting += 1
                handed.abort()
        else:
            self._connecting += 1
        return await self._open()

    async def dial(self, make: Callable[[int], _Protocol]) -> _Protocol:
        """Open a connection. It belongs to the pool and counts towards its limit only if `_open` adds it.

        Each origin is tried at most once. This is safe because no request has been sent yet.

        Args:
            make: Returns the protocol of a connection to the origin with this key.

        Raises:
            UpstreamBusy: The pool is closed.
            UpstreamTimeout: Connecting took too long.
            UpstreamUnreachable: No origin could be connected to.
        """
        self._start()
        tried: UpstreamUnreachable | UpstreamTimeout | None = None
        for _ in self._hosts:
            host = self._next_host()
            self._next_index = host.key
            try:
                protocol = await host.connect(partial(make, host.key), self.upstream)
            except (UpstreamUnreachable, UpstreamTimeout) as error:
                host.failed(self._loop.time())
                tried = error
            else:
                host.connected()
                return protocol
        raise tried or UpstreamUnreachable("no upstream is configured")

    def retire(self) -> None:
        """Close idle connections now and the others when their response is complete, because the config was replaced.

        Requests that use this pool are still served.
        """
        self._retired = True
        for host in self._hosts:
            while host.idle:
                host.idle.popitem()[0].close()

    async def close(self) -> None:
        """Close the pool: close idle connections, fail the exchanges in progress and reject waiting requests."""
        self.retire()
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(UpstreamBusy("shutting down"))
        for connection in tuple(self._connections):
            connection.fail(ClosedEarly("shutting down"))

    # -- ConnectionOwner

    def on_read_timeout_disabled(self, connection: Connection) -> None:
        """Stop counting the connection towards the limit."""
        self._patient_connections.add(connection)
        self._has_room()

    def on_connection_failure(self, connection: Connection) -> None:
        """Record the failed request for the origin."""
        self._hosts[connection.key].record_failure(self._loop.time())

    def on_connection_response(self, connection: Connection) -> None:
        """Record the response for the origin."""
        host = self._hosts[connection.key]
        if host.consecutive_failures:
            host.record_response()

    def on_idle(self, connection: Connection) -> None:
        """Keep the connection for the next request, or close it if the pool is over its limit."""
        if self._patient_connections and connection in self._patient_connections:
            self._patient_connections.discard(connection)
            if self.size > self.upstream.pool:
                connection.close()
                return
        self._keep(connection)

    def on_stray(self, connection: Connection) -> None:
        """Stop reusing connections after this origin's bodiless responses if it has sent a body with one.

        The head of a 204 does not show that gunicorn before 27 will also send the body that the app returned with it.
        """
        if connection.bodiless:
            self._hosts[connection.key].oversends = True

    def on_gone(self, connection: Connection) -> None:
        """Remove the connection, and let a waiter open a new one."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._patient_connections.discard(connection)
            self._hosts[connection.key].idle.pop(connection, None)
            self._has_room()

    # -- internals

    def _keep(self, connection: Connection) -> None:
        """Keep the connection for the next request.

        A waiter gets it in the next iteration of the event loop at the earliest. Bytes that the upstream has sent after
        its response would otherwise not have been noticed yet.
        """
        host = self._hosts[connection.key]
        if host.consecutive_failures:
            host.record_response()
        if host.oversends and connection.bodiless:
            connection.close()
            return
        if self._waiters:
            if not self._serving:
                self._serving = True
                self._loop.call_soon(self._serve_waiters)
        elif self._retired:
            connection.close()
            return
        host.idle[connection] = None

    def _serve_waiters(self) -> None:
        """Hand idle connections to waiters, the longest-waiting first."""
        self._serving = False
        while self._waiters and (connection := self._pop_any()) is not None:
            waiter = self._next_waiter()
            if waiter is None:
                self._keep(connection)
                break
            waiter.set_result(connection)
        if self._retired and not self._waiters:
            self.retire()

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _pop(self, host: PooledOrigin) -> Connection | None:
        """Remove and return the most recently used idle connection, or None.

        Connections that are no longer usable, for example because unexpected bytes have arrived, are aborted.
        """
        while host.idle:
            connection, _ = host.idle.popitem()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def _pop_any(self) -> Connection | None:
        for host in self._hosts:
            if (connection := self._pop(host)) is not None:
                return connection
        return None

    def _next_host(self) -> PooledOrigin:
        """Return the next origin (round robin) that is not ejected. If all are ejected, return the next one."""
        hosts = self._hosts
        count = len(hosts)
        for step in range(1, count + 1):
            host = hosts[(self._next_index + step) % count]
            if host.ejected_until <= self.now:
                return host
        return hosts[(self._next_index + 1) % count]

    def _has_room(self) -> None:
        """Let the first waiters open new connections, as far as the limit allows.

        A waiter gets None as its result. Its connection is already counted in `_connecting`.
        """
        while self.size < self.upstream.pool and (waiter := self._next_waiter()) is not None:
            self._connecting += 1
            waiter.set_result(None)

    async def _wait(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append((self._loop.time() + self.wait_timeout, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                handed = waiter.result()
                if handed is None:
                    self._connecting -= 1
                    self._has_room()
                elif handed.usable:
                    self._keep(handed)
                else:
                    handed.abort()
            raise

    async def _open(self) -> Connection:
        """Open a connection that is already counted in `_connecting`."""
        try:
            connection = await self.dial(lambda key: Connection(self, key, self.upstream, self._head_cache))
            if not connection.usable:
                connection.abort()
                raise UpstreamUnreachable(
                    "the upstream closed a new connection, or sent something before it had a request"
                )
            self._connections.add(connection)
        finally:
            self._connecting -= 1
            self._has_room()
        return connection

    def _start(self) -> None:
        if self._closed:
            raise UpstreamBusy("shutting down")
        if self._ticker is None:
            self._loop = asyncio.get_running_loop()
            self.now = self._loop.time()
            self._ticker = self._loop.call_later(self.tick, self._on_tick)

    def _on_tick(self) -> None:
        self._ticker = None
        now = self.now = self._loop.time()
        while self._waiters and self._waiters[0][0] < now:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(UpstreamBusy("all connections to the upstream are in use"))
        for connection in tuple(self._connections):
            connection.tick(now, self.idle_timeout)
        if self._waiters:
            self._make_room(now)
        if (self._connections or self._waiters or self._connecting) and not self._closed:
            self._ticker = self._loop.call_later(self.tick, self._on_tick)

    def _make_room(self, now: float) -> None:
        """Abort the slowest upload if it is too slow, so that a waiter gets a connection.

        One upload per tick is enough, because waiters take any connection that becomes free.
        """
        slowest = max(self._connections, key=lambda one: one.seconds_behind(now, _MIN_UPLOAD_RATE), default=None)
        if slowest is not None and slowest.seconds_behind(now, _MIN_UPLOAD_RATE) > _UPLOAD_GRACE:
            slowest.fail(SlowClient("the request body came too slowly while others waited for the upstream"))
