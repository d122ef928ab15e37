"""One HTTP/1.1 connection to an upstream: a request is bytes, its response goes to a sink by plain calls.

Theory of operation. A connection serves one request at a time and is in one of three states:

=======  ==========================================  =============================================
state    meaning                                     bytes that arrive
=======  ==========================================  =============================================
IDLE     no sink; in the pool or just made           nobody asked: the connection is closed
HEAD     request sent or being sent                  heads: 1xx are counted and dropped, then BODY
BODY     response head given to the sink             body, trailers, end
=======  ==========================================  =============================================

A complete response returns the connection to its owner only after the parser has seen all the bytes that came with it.
The connection is closed instead if there are bytes behind the response, if the request is still being sent, or if the
head leaves in doubt where the response ends (`response_head.validate_head` decides that). Bytes that arrive later close
it as well: `data_received` while it is idle, and `usable` looks for unread ones before it is handed out. So a response
is never given to another request (RFC 9112 sections 6.3 and 9.2).

A response that arrives whole and has a plain head goes from HEAD to IDLE without the parser (`plain_heads`), which has
then seen none of its bytes and still stands before the next response.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.errors import ClosedEarly, InvalidResponse, SlowClient, UpstreamTimeout
from akoya_gateway.upstream.http.interfaces import ConnectionOwner, ResponseHandler
from akoya_gateway.upstream.http.response_head import Framing, Headers, check_size, validate_head, validate_trailers
from akoya_gateway.upstream.http.response_head_cache import ResponseHeadCache

NEVER = float("inf")

IDLE, HEAD, BODY = range(3)


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """What a response may use up before its body. Bytes are counted as they arrive."""

    head_bytes: int = 65_536
    headers: int = 256
    informational: int = 16
    stalled_bytes: int = 65_536
    """Bytes of chunk heads, extensions or trailers that come without any content."""


class Connection(asyncio.Protocol):
    """See the module's text. Methods are for the one that holds the connection, `on_*` for parser and loop."""

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
        "_limits",
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
        "_write_timeout",
        "congested",
        "deadline",
        "has_response_bytes",
        "idle_since",
        "key",
        "request_count",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        owner: ConnectionOwner[Connection],
        key: int,
        *,
        read_timeout: float,
        write_timeout: float,
        limits: ResponseLimits,
        head_cache: ResponseHeadCache | None = None,
        reusable: bool = True,
    ) -> None:
        """`key`: which origin of the owner. Timeouts in seconds, from byte to byte. `head_cache` may be shared.
        `reusable`: False closes it after its first response."""
        self.key = key
        self.request_count = 0
        """Requests sent so far, this one included."""
        self.has_response_bytes = False
        """A byte of the present response has come."""
        self.congested = False
        """The transport holds more than it likes: wait for `ResponseHandler.on_writable`."""
        self.deadline = NEVER
        self.idle_since = owner.now
        self._owner = owner
        self._limits = limits
        self._head_cache = head_cache or ResponseHeadCache()
        self._reusable = reusable
        self._poll: Callable[[int], list[tuple[int, int]]] | None = None
        """Whether the socket has something to read: `poll` costs half of FIONREAD and sees a closed peer as well."""
        self._tls: ssl.SSLObject | None = None
        self._read_timeout = self._timeout = read_timeout
        self._write_timeout = write_timeout
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

    # -- for the holder

    @property
    def usable(self) -> bool:
        """It may carry a request: none is under way, and the upstream has sent nothing since the last response."""
        return self._state == IDLE and not self._transport.is_closing() and not self._has_unread()

    @property
    def bodiless(self) -> bool:
        """The last response has no body by rule, whatever the upstream sent behind its head."""
        return self.request_count > 0 and self._framing is Framing.NONE

    def start(self, data: bytes, handler: ResponseHandler, *, head_only: bool = False, complete: bool = True) -> None:
        """Send a request: its head and, if there is, the first of its body. `complete`: this is all of it."""
        self._handler = handler
        self._state = HEAD
        self._headers = []
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

    def transfer_to(self, handler: ResponseHandler) -> None:
        """What comes from now on of the response under way is for this one; of none, if it has all come."""
        if self._handler is not None:
            self._handler = handler

    def write(self, data: bytes) -> None:
        """Send a piece of the request body, already framed."""
        self._body_bytes += len(data)
        self._transport.write(data)
        self._rearm()

    def finish_request(self) -> None:
        """The request body is complete: from now on the upstream's time counts."""
        self._continues = False
        self._rearm()

    def pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()
            self.deadline = NEVER

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
            self._rearm()

    def disable_read_timeout(self) -> None:
        """This response may be silent for as long as it likes (an event stream), and is not one of the many."""
        self._timeout = NEVER
        self._rearm()
        self._owner.on_read_timeout_disabled(self)

    def abort(self) -> None:
        """The holder wants no more of it. The sink hears nothing."""
        self._close(hard=True)

    def fail(self, error: GatewayError) -> None:
        """Cut it, and tell the sink why."""
        handler = self._handler
        trouble = self._state == HEAD and self._counts_as_failure(error)
        self._close(hard=True)
        if handler is not None:
            if trouble:
                self._owner.on_connection_failure(self)
            handler.on_failure(error)

    def close(self) -> None:
        """An idle connection is no longer needed."""
        self._close(hard=False)

    # -- for the owner

    def tick(self, now: float, idle_timeout: float) -> None:
        """Called now and then: ends what is overdue."""
        handler = self._handler
        if handler is None:
            if now - self.idle_since > idle_timeout:
                self._close(hard=False)
        elif now > self.deadline:
            if self._awaits_client and not self.congested:
                self.fail(SlowClient("the request body took too long to arrive"))
            else:
                doing = "take the request" if self.congested else "answer"
                self.fail(UpstreamTimeout(f"the upstream took too long to {doing}"))
        else:
            handler.on_tick()

    def seconds_behind(self, now: float, rate: float) -> float:
        """Seconds by which the request body is later than at `rate` bytes a second; 0 where it is not the client that
        is waited for."""
        if not self._awaits_client or self.congested:
            return 0.0
        return now - self._body_since - self._body_bytes / rate

    def abort_slow_upload(self) -> None:
        """Others wait, and this request's body keeps them waiting."""
        self.fail(SlowClient("the request body came too slowly while others waited for the upstream"))

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
        if self._handler is None:
            if self._state == IDLE:
                self._owner.on_stray(self)
            self._close(hard=True)
            return
        if not self.has_response_bytes:
            self.has_response_bytes = True
            if not self._head_only and not self._continues and self._is_plain(data):
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("it switched protocols without being asked to")
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(str(cause) if isinstance(cause, InvalidResponse) else "it is not valid HTTP/1.1")
        if self._handler is None:
            return
        if self._complete:
            self._end()
        else:
            # A head that has begun must be whole in time: its bytes alone win none, or it could trickle for hours.
            if self._state != HEAD or not self._head_bytes:
                self._rearm()
            self._count(len(data))

    def eof_received(self) -> None:
        if self._state == BODY and self._framing is Framing.UNTIL_CLOSE:
            self._complete = True
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.on_gone(self)
        if self._handler is not None:
            at = "before it answered" if self._state == HEAD else "in the middle of its answer"
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
        check_size(headers, self._limits.headers, self._limits.head_bytes)
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
        """1xx: no answer yet (RFC 9110 section 15.2). 101 was never asked for."""
        self._informational += 1
        if status == 101 or self._informational > self._limits.informational:
            raise InvalidResponse(f"an unexpected {status}")
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers):
            raise InvalidResponse(f"a {status} with a body")
        self._head_bytes = 0

    def on_body(self, chunk: bytes) -> None:
        if self._complete:
            self._must_close = True
        elif self._handler is not None:
            self._progress = True
            self._handler.on_body(chunk)

    def on_chunk_header(self) -> None:
        if self._complete:
            self._must_close = True

    def on_message_complete(self) -> None:
        if self._state == BODY and not self._complete:
            self._complete = True

    # -- inside

    @property
    def _awaits_client(self) -> bool:
        return self._continues and self._state == HEAD

    def _counts_as_failure(self, error: GatewayError) -> bool:
        if isinstance(error, ClosedEarly):
            return not (error.no_response_bytes and self.request_count > 1)
        return isinstance(error, UpstreamTimeout | InvalidResponse)

    def _has_unread(self) -> bool:
        """Whether bytes, or the end of the stream, have arrived that the event loop has not read yet."""
        if self._tls is not None:
            if self._tls.pending():
                return True
            if not self.request_count:
                # A server may send session tickets after the handshake (RFC 8446 section 4.6.1).
                return False
        return self._poll is not None and bool(self._poll(0))

    def _rearm(self) -> None:
        """Which phase's time is running: the upstream taking bytes, the client sending its body, the answer."""
        if self.congested:
            self.deadline = self._owner.now + self._write_timeout
        elif self._read_paused:
            self.deadline = NEVER
        else:
            self.deadline = self._owner.now + self._timeout

    def _count(self, size: int) -> None:
        """Bytes that came and did not end what they belong to: lines without end are refused."""
        if self._state == HEAD:
            self._head_bytes += size
            if self._head_bytes > self._limits.head_bytes:
                self.fail(InvalidResponse("its header section is too large"))
        elif self._progress:
            self._progress = False
            self._stalled = 0
        else:
            self._stalled += size
            if self._stalled > self._limits.stalled_bytes:
                self.fail(InvalidResponse("its chunks have no content"))

    def _refuse(self, why: str) -> None:
        """Bytes that make no sense: behind a complete response they cost the connection, before its end also that."""
        if self._complete:
            self._must_close = True
        else:
            self.fail(InvalidResponse(f"the upstream's answer was refused: {why}"))

    def _is_plain(self, data: bytes) -> bool:
        """A whole response and nothing else, with a head that needs no parser; it stands between two messages and stays
        there."""
        found = self._head_cache.read(data)
        if found is None or len(data) - found[1] != found[0].length:
            return False
        handler = self._handler
        self._handler = None
        self._framing = Framing.LENGTH
        self._release(reusable=True)
        if handler is not None:
            handler.on_complete_response(found[0], data[found[1] :])
        return True

    def _end(self) -> None:
        handler = self._handler
        self._handler = None
        if handler is not None and self._announced:
            handler.on_trailers(validate_trailers(self._headers))
        if self._must_close:
            self._owner.on_stray(self)
        self._release(reusable=self._keep_alive and not self._must_close and not self._continues)
        if handler is not None:
            handler.on_end()

    def _release(self, *, reusable: bool) -> None:
        """Give the connection back to its owner for the next request, or close it.

        It is also closed if a part of the request is still to be sent: an upstream that responds without having read a
        body may take the rest of it for the next request.
        """
        unsent = self._transport.get_write_buffer_size()
        if not reusable or not self._reusable or unsent or self._transport.is_closing():
            self._close(hard=self._must_close or self._continues or bool(unsent))
            self._owner.on_connection_response(self)
            return
        self._state = IDLE
        self.deadline = NEVER
        if self._read_paused:
            self.resume_reading()
        self.idle_since = self._owner.now
        self._owner.on_idle(self)

    def _close(self, *, hard: bool) -> None:
        """`hard`: without sending what is still to be sent, and without a farewell."""
        self._handler = None
        self._state = BODY
        if hard:
            self._transport.abort()
        else:
            self._transport.close()
        self._owner.on_gone(self)
