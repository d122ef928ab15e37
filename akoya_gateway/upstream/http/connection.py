"""One HTTP/1.1 connection to an upstream. Requests are written as bytes, and responses are delivered by callbacks.

Theory of operation. A connection serves one request at a time and is in one of three states:

=======  ==========================================  ===============================================
state    meaning                                     bytes that arrive
=======  ==========================================  ===============================================
IDLE     no handler; in the pool or just created     are unexpected, so the connection is closed
HEAD     the request is sent or being sent           heads: 1xx are counted and dropped; then BODY
BODY     the handler has received the head           body, trailers, end
=======  ==========================================  ===============================================

After a complete response the connection is returned to its owner, but only after the parser has processed all bytes
that arrived with the response. The connection is closed instead if there are bytes after the response, if the request
is still being sent, or if it is uncertain where the response ends (decided by `response_head.validate_head`). Bytes
that arrive later close it too: `data_received` does this while the connection is idle, and `usable` checks for unread
bytes before the connection is handed out. A response is therefore never delivered to the wrong request (RFC 9112
sections 6.3 and 9.2).

A response that arrives in one piece and has a simple head (`response_head_cache`) goes from HEAD to IDLE without the
parser. The parser has then processed none of its bytes and is still at the start of a message.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable

import httptools

from akoya_gateway.config.model import Upstream
from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.errors import ClosedEarly, InvalidResponse, SlowClient, UpstreamTimeout
from akoya_gateway.upstream.http.interfaces import ConnectionOwner, ResponseHandler
from akoya_gateway.upstream.http.response_head import (
    Framing,
    Headers,
    check_size,
    has_line_breaks_behind,
    line_breaks_at_end,
    validate_head,
    validate_trailers,
)
from akoya_gateway.upstream.http.response_head_cache import ResponseHeadCache

NEVER = float("inf")

IDLE, HEAD, BODY = range(3)


MAX_HEAD_BYTES, MAX_HEADERS, MAX_INFORMATIONAL = 65_536, 256, 16
"""Limits for the parts of a response other than its content. Bytes are counted as they arrive."""
MAX_STALLED_BYTES = 65_536
"""Bytes of chunk headers, extensions or trailers that may arrive without any content in between."""


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection (see the module docstring).

    The caller that holds the connection uses the public methods. `on_*` methods are called by the parser, and the
    methods of `asyncio.Protocol` by the event loop.
    """

    __slots__ = (
        "_announced",
        "_body_bytes",
        "_body_since",
        "_complete",
        "_continues",
        "_framing",
        "_handler",
        "_head_bytes",
        "_head_cache",
        "_head_only",
        "_headers",
        "_informational",
        "_keep_alive",
        "_last_chunk",
        "_line_breaks",
        "_must_close",
        "_owner",
        "_parser",
        "_poll",
        "_progress",
        "_read_paused",
        "_read_timeout",
        "_reusable",
        "_stalled",
        "_state",
        "_timeout",
        "_tls",
        "_transport",
        "congested",
        "deadline",
        "has_response_bytes",
        "idle_since",
        "key",
        "request_count",
    )

    _transport: asyncio.Transport

    def __init__(
        self, owner: ConnectionOwner[Connection], key: int, upstream: Upstream, head_cache: ResponseHeadCache
    ) -> None:
        """Create the connection.

        Args:
            owner: Is notified when the connection becomes idle or is closed.
            key: Identifies the origin for the owner.
            upstream: Its read timeout limits the seconds without received bytes (or, while the client sends its body,
                without sent bytes). Without `keep_alive` the connection is closed after its first response.
            head_cache: May be shared between connections.
        """
        self.key = key
        self.request_count = 0
        """Number of requests sent, including the current one."""
        self.has_response_bytes = False
        """True once a byte of the current response has arrived."""
        self.congested = False
        """True if the transport's write buffer is full. Wait for `ResponseHandler.on_writable`."""
        self.deadline = NEVER
        self.idle_since = owner.now
        self._owner = owner
        self._head_cache = head_cache
        self._reusable = upstream.keep_alive
        self._poll: Callable[[int], list[tuple[int, int]]] | None = None
        """Polls the socket for unread bytes. It costs half as much as FIONREAD and also detects a closed peer."""
        self._tls: ssl.SSLObject | None = None
        self._read_timeout = self._timeout = float(upstream.read_timeout)
        self._handler: ResponseHandler | None = None
        self._state = IDLE
        self._read_paused = False
        self._body_since = 0.0
        self._body_bytes = 0
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._headers: Headers = []
        self._head_bytes = self._stalled = self._informational = 0
        self._complete = self._must_close = self._head_only = self._continues = self._announced = False
        self._keep_alive = self._progress = False
        self._framing = Framing.NONE
        self._last_chunk = self._line_breaks = b""

    # -- for the caller that holds the connection

    @property
    def usable(self) -> bool:
        """True if a request may be sent: none is in progress, and nothing has arrived since the last response."""
        return self._state == IDLE and not self._transport.is_closing() and not self._has_unread()

    @property
    def bodiless(self) -> bool:
        """True if the last response cannot have a body, even if the upstream has sent bytes after its head."""
        return self.request_count > 0 and self._framing is Framing.NONE

    def start(self, data: bytes, handler: ResponseHandler, *, head_only: bool = False, complete: bool = True) -> None:
        """Send a request.

        Args:
            data: The request head and, optionally, the beginning of the body.
            handler: Receives the response.
            head_only: The request is a HEAD request.
            complete: `data` is the whole request.
        """
        self._handler = handler
        self._state = HEAD
        self._headers = []
        self._last_chunk = self._line_breaks = b""
        self._head_bytes = self._informational = 0
        self._complete = self._must_close = self.has_response_bytes = False
        self._head_only = head_only
        self._continues = not complete
        if not complete:
            self._body_since = self._owner.now
            self._body_bytes = 0
        self._timeout = self._read_timeout
        self.request_count += 1
        self._transport.write(data)
        self._rearm()

    def write(self, data: bytes) -> None:
        """Send a part of the request body, including its framing."""
        self._body_bytes += len(data)
        self._transport.write(data)
        self._rearm()

    def finish_request(self) -> None:
        """Mark the request body as complete. From now on a timeout is attributed to the upstream, not the client."""
        self._continues = False
        self._rearm()

    def pause_reading(self) -> None:
        """Stop reading from the upstream, and stop the read timeout."""
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()
            self.deadline = NEVER

    def resume_reading(self) -> None:
        """Continue to read from the upstream."""
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
            self._rearm()

    def disable_read_timeout(self) -> None:
        """Allow the current response (an event stream) to be silent indefinitely, and notify the owner of this."""
        self._timeout = NEVER
        self._rearm()
        self._owner.on_read_timeout_disabled(self)

    def abort(self) -> None:
        """Abort the connection without notifying the handler."""
        self.close(hard=True)

    def fail(self, error: GatewayError) -> None:
        """Abort the connection and report `error` to the handler."""
        handler = self._handler
        counts = self._state == HEAD and self._counts_as_failure(error)
        self.abort()
        if handler is not None:
            if counts:
                self._owner.on_connection_failure(self)
            handler.on_failure(error)

    def close(self, *, hard: bool = False) -> None:
        """Close the connection. If `hard` is True, discard unsent data and do not perform a TLS shutdown."""
        self._handler = None
        self._state = BODY
        if hard:
            self._transport.abort()
        else:
            self._transport.close()
        self._owner.on_gone(self)

    # -- for the owner

    def tick(self, now: float, idle_timeout: float) -> None:
        """Enforce the timeouts. The owner calls this periodically."""
        handler = self._handler
        if handler is None:
            if now - self.idle_since > idle_timeout:
                self.close()
        elif now > self.deadline:
            if self._awaits_client and not self.congested:
                self.fail(SlowClient("the request body took too long to arrive"))
            else:
                doing = "take the request" if self.congested else "respond"
                self.fail(UpstreamTimeout(f"the upstream took too long to {doing}"))
        else:
            handler.on_tick()

    def seconds_behind(self, now: float, rate: float) -> float:
        """Return how many seconds the request body is behind a rate of `rate` bytes per second.

        Return 0 if the exchange is not waiting for the client.
        """
        if not self._awaits_client or self.congested:
            return 0.0
        return now - self._body_since - self._body_bytes / rate

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._tls = transport.get_extra_info("ssl_object")
        sock = transport.get_extra_info("socket")
        if sock is not None:
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            self._poll = poll.poll

    def data_received(self, data: bytes) -> None:
        handler = self._handler
        if handler is None:
            if self._state == IDLE:
                self._owner.on_stray(self)
            self.abort()
            return
        if not self.has_response_bytes:
            self.has_response_bytes = True
            if not self._head_only and not self._continues and self._is_plain(data, handler):
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("it switched protocols without being asked to")
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(str(cause) if isinstance(cause, InvalidResponse) else f"it is not valid HTTP/1.1 ({error})")
        if self._handler is None:
            return
        if self._complete:
            last_chunk = self._last_chunk if self._framing is Framing.LENGTH else b""
            if data[-1] in b"\r\n" and has_line_breaks_behind(data, last_chunk, self._line_breaks):
                self._keep_alive = False
            self._end(handler)
        else:
            # The bytes of an incomplete head do not extend the deadline. Otherwise a head could take hours to arrive.
            if self._state != HEAD or not self._head_bytes:
                self._rearm()
            self._line_breaks = line_breaks_at_end(data, self._line_breaks) if data[-1] in b"\r\n" else b""
            self._count(len(data))

    def eof_received(self) -> None:
        if self._handler is not None and self._state == BODY and self._framing is Framing.UNTIL_CLOSE:
            self._complete = True
            self._end(self._handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.on_gone(self)
        if self._handler is not None:
            at = "before it responded" if self._state == HEAD else "in the middle of its response"
            self.fail(
                ClosedEarly(f"the upstream closed the connection {at}", no_response_bytes=not self.has_response_bytes)
            )

    def pause_writing(self) -> None:
        self.congested = True
        self._rearm()

    def resume_writing(self) -> None:
        self.congested = False
        self._rearm()
        if self._handler is not None:
            self._handler.on_writable()

    # -- httptools

    def on_message_begin(self) -> None:
        if self._complete:
            self._must_close = True

    on_chunk_header = on_message_begin

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            self._must_close = True
            return
        parser = self._parser
        status = parser.get_status_code()
        headers = self._headers
        self._headers = []
        self._stalled = 0
        check_size(headers, MAX_HEADERS, MAX_HEAD_BYTES)
        if status < 200:
            self._skip_informational(status, headers)
            return
        head = validate_head(status, parser.get_http_version(), headers, head_only=self._head_only)
        self._state = BODY
        self._framing = head.framing
        self._keep_alive = not head.close
        self._announced = head.trailers
        if self._head_only:
            self._complete = True
        if self._handler is not None:
            self._handler.on_head(status, head)

    def _skip_informational(self, status: int, headers: Headers) -> None:
        """Skip a 1xx response (RFC 9110 section 15.2). A 101 is an error, because no upgrade was requested."""
        self._informational += 1
        if status == 101 or self._informational > MAX_INFORMATIONAL:
            raise InvalidResponse(f"an unexpected {status}")
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers):
            raise InvalidResponse(f"a {status} with a body")
        self._head_bytes = 0

    def on_body(self, chunk: bytes) -> None:
        if self._complete:
            self._must_close = True
        elif self._handler is not None:
            self._progress = True
            self._last_chunk = chunk
            self._handler.on_body(chunk)

    def on_message_complete(self) -> None:
        if self._state == BODY:
            self._complete = True

    # -- internals

    @property
    def _awaits_client(self) -> bool:
        return self._continues and self._state == HEAD

    def may_retry(self, error: Exception, *, idempotent: bool) -> bool:
        """Return True if a request that failed here may be sent once more (RFC 9110 section 9.2.2).

        The upstream may have closed the idle connection just as the request was written.
        """
        return isinstance(error, ClosedEarly) and error.no_response_bytes and self.request_count > 1 and idempotent

    def _counts_as_failure(self, error: GatewayError) -> bool:
        if isinstance(error, ClosedEarly):
            return not self.may_retry(error, idempotent=True)
        return isinstance(error, UpstreamTimeout | InvalidResponse)

    def _has_unread(self) -> bool:
        """Return True if bytes or the end of the stream have arrived that the event loop has not read yet."""
        if self._tls is not None:
            if self._tls.pending():
                return True
            if not self.request_count:
                # A server may send session tickets after the handshake (RFC 8446 section 4.6.1).
                return False
        return self._poll is not None and bool(self._poll(0))

    def _rearm(self) -> None:
        """Restart the timeout of the current phase: sending, waiting for the request body or for the response."""
        if self.congested:
            self.deadline = self._owner.now + self._owner.write_timeout
        elif self._read_paused:
            self.deadline = NEVER
        else:
            self.deadline = self._owner.now + self._timeout

    def _count(self, size: int) -> None:
        """Count bytes of an incomplete head, chunk header or trailer section, and fail if there are too many."""
        if self._state == HEAD:
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD_BYTES:
                self.fail(InvalidResponse("its header section is too large"))
        elif self._progress:
            self._progress = False
            self._stalled = 0
        else:
            self._stalled += size
            if self._stalled > MAX_STALLED_BYTES:
                self.fail(InvalidResponse("its chunks have no content"))

    def _refuse(self, why: str) -> None:
        """Handle invalid bytes: fail the response, or only close the connection if the response is complete."""
        if self._complete:
            self._must_close = True
        else:
            self.fail(InvalidResponse(f"the upstream's response was rejected: {why}"))

    def _is_plain(self, data: bytes, handler: ResponseHandler) -> bool:
        """Handle `data` without the parser and return True, if it is exactly one response with a simple head.

        The parser stays between two messages.
        """
        found = self._head_cache.read(data)
        if found is None or len(data) - found[1] != found[0].length:
            return False
        self._handler = None
        self._framing = found[0].framing
        self._release(reusable=True)
        handler.on_complete_response(found[0], data[found[1] :])
        return True

    def _end(self, handler: ResponseHandler) -> None:
        self._handler = None
        if self._announced:
            handler.on_trailers(validate_trailers(self._headers))
        if self._must_close:
            self._owner.on_stray(self)
        self._release(reusable=self._keep_alive and not self._must_close and not self._continues)
        handler.on_end()

    def _release(self, *, reusable: bool) -> None:
        """Give the connection back to its owner for the next request, or close it.

        It is also closed if a part of the request is still to be sent: an upstream that responds without having read a
        body may take the rest of it for the next request.
        """
        unsent = self._transport.get_write_buffer_size()
        if not reusable or not self._reusable or unsent or self._transport.is_closing():
            self.close(hard=self._must_close or self._continues or bool(unsent))
            self._owner.on_connection_response(self)
            return
        self._state = IDLE
        self.deadline = NEVER
        if self._read_paused:
            self.resume_reading()
        self.idle_since = self._owner.now
        self._owner.on_idle(self)
