"""Bridges the callbacks of a connection and a coroutine that awaits the response."""

from __future__ import annotations

import asyncio

from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.interfaces import ResponseHandler
from akoya_gateway.upstream.http.response_head import Headers, ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead

HIGH_WATER_BYTES = 131_072
"""Bytes of response body buffered for a slow client before reading from the connection is paused."""


class ResponseStream(ResponseHandler):
    """An awaitable response.

    `status` is 0 until the response head has arrived.
    """

    connection: Connection
    status = 0
    head: ResponseHead | None = None
    complete: CachedResponseHead | None = None
    """The head of a complete response with a simple head (see `response_head_cache`)."""
    ended = True
    """True if no response is in progress."""
    failure: Exception | None = None
    trailers: Headers | tuple[()] = ()
    _buffered = 0
    _waiter: asyncio.Future[None] | None = None
    _writable: asyncio.Future[None] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: list[bytes] = []

    def begin(self, connection: Connection, data: bytes, *, head_only: bool = False, complete: bool = True) -> None:
        """Send a request, whose response this is (parameters as of `Connection.start`)."""
        self.connection = connection
        self.ended = False
        self.failure = None
        connection.start(data, self, head_only=head_only, complete=complete)

    @property
    def is_finished(self) -> bool:
        """True if the response is complete or has failed. The connection must not be used any more."""
        return self.ended or self.failure is not None

    async def wait_readable(self) -> None:
        """Wait for the next event unless body bytes are buffered or the response is finished."""
        if not self._chunks and not self.ended and self.failure is None:
            self._waiter = self._loop.create_future()
            await self._waiter

    def head_or_failure(self) -> asyncio.Future[None]:
        """Return a future that is done once the response head has arrived or the exchange has failed."""
        waiter = self._waiter = self._loop.create_future()
        if self.status or self.failure is not None:
            waiter.set_result(None)
        return waiter

    async def wait_head(self) -> None:
        """Wait for the response head. Raises the error if the exchange fails before it arrives."""
        await self.head_or_failure()
        if not self.status and self.failure is not None:
            raise self.failure

    def read_buffered(self) -> bytes:
        """Return all buffered body bytes. If there are none and the exchange has failed, raise the error."""
        chunks = self._chunks
        if not chunks:
            if self.failure is not None:
                raise self.failure
            return b""
        self._chunks = []
        if self._buffered > HIGH_WATER_BYTES and not self.is_finished:
            self.connection.resume_reading()
        self._buffered = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def wait_writable(self) -> None:
        """Wait until more of the request body may be written, or the exchange is finished."""
        while self.connection.congested and not self.is_finished:
            self._writable = self._loop.create_future()
            await self._writable

    def fail(self, error: Exception) -> None:
        """Abort the connection and report `error` to the waiting coroutine. Does nothing if already finished."""
        if not self.is_finished:
            self.connection.abort()
            self.on_failure(error)

    # -- ResponseHandler

    def on_head(self, status: int, head: ResponseHead) -> None:
        self.status = status
        self.head = head
        self._wake()

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        if self._buffered > HIGH_WATER_BYTES:
            self.connection.pause_reading()
        self._wake()

    def on_trailers(self, headers: Headers) -> None:
        self.trailers = headers

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        self.complete = head
        self.status = head.status
        if body:
            self._chunks.append(body)
        self.on_end()

    def on_end(self) -> None:
        self.ended = True
        self._wake()
        self.on_writable()

    def on_failure(self, error: Exception) -> None:
        self.failure = error
        self._wake()
        self.on_writable()

    def on_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- internals

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
