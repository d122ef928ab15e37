"""uvicorn's HTTP protocol with the limits that it lacks.

It limits the size, the number of fields and the duration of a request's head, and how long a connection may stay idle.

A request that cannot be parsed closes the connection after the responses to the requests before it. The error response
is not lost while the client is still sending (`lingering_close`). When a connection is lost, all its pending requests
are notified. uvicorn notifies only the one that was parsed last. An upgrade that the gateway does not support is
ignored (RFC 9110 section 7.8), and the bytes after it are parsed as HTTP. See also `expect_continue`.

What this package uses of uvicorn beyond its documentation is listed in `uvicorn_api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from akoya_gateway.host_header import names_another_host
from akoya_gateway.server.expect_continue import ExpectContinueApp, has_body
from akoya_gateway.server.http_1_0 import CloseDelimited
from akoya_gateway.server.lingering_close import LingeringClose, RequestTransport
from akoya_gateway.server.malformed import malformed_reason
from akoya_gateway.server.problem_response import problem_response
from akoya_gateway.server.refusal_log import RefusalLog
from akoya_gateway.server.websocket_protocol import GuardedWebSocketProtocol

HEAD_TIMEOUT = 20.0
"""Seconds in which a head must be complete, from the start of the connection or from the first byte of the head."""

SEND_TIMEOUT = 60.0
"""Seconds in which a client must read enough (about 48 KB) for its connection to become writable again.

Until then it holds memory, and an upstream connection that other requests could use.
"""

MAX_PIPELINED = 64
"""Maximum requests queued behind the one in progress. A request of 20 bytes takes some kilobytes of memory."""


class Refused(Exception):
    """Raised in a parser callback to refuse the request with this status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits and timeouts."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_limit: int = 65_536,
        field_limit: int = 256,
        head_timeout: float = HEAD_TIMEOUT,
        send_timeout: float = SEND_TIMEOUT,
        refusal_log: RefusalLog | None = None,
    ) -> None:
        """Create the protocol of one connection.

        Args:
            config: uvicorn's configuration.
            server_state: uvicorn's state, shared by all connections.
            app_state: uvicorn's lifespan state.
            head_limit: maximum bytes of request line and headers together.
            field_limit: maximum header fields of one request.
            head_timeout: see `HEAD_TIMEOUT`.
            send_timeout: see `SEND_TIMEOUT`.
            refusal_log: receives refused requests.
        """
        super().__init__(config, server_state, app_state, _loop)
        self._head_limit = head_limit
        self._field_limit = field_limit
        self._refusal_log = refusal_log or RefusalLog()
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timeout = send_timeout
        self._send_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._chunk = 0
        self._in_head = self._in_body = self._progress = False
        self._bytes_without_body = 0
        self._running: RequestResponseCycle | None = None
        """The request in progress, or the last completed one. `cycle` is the one that was parsed last."""
        self._cycle_transport: RequestTransport
        self.on_lost: Callable[[], None] | None = None
        """Called when the connection is lost. For an app that cannot wait in `receive` at that moment."""
        self._refusal: bytes | None = None
        """The last response of this connection; may be empty. Once it is set, further client data is discarded."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cycle_transport = RequestTransport(transport, self.close_after_response)
        self._head_timer = self.loop.call_later(self._head_timeout, self._on_head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._end_send_timer()
        for cycle in self._pending_cycles():
            _disconnect(cycle)
        self.pipeline.clear()
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            self.transport.close()
        else:
            # uvicorn uses `cycle`, which is a different request if a WebSocket handshake was parsed behind this one.
            last.keep_alive = False

    def _pending_cycles(self) -> Iterator[RequestResponseCycle]:
        if self._running is not None and not self._running.response_complete:
            yield self._running
        for cycle, _ in self.pipeline:
            yield cycle

    @property
    def under_way(self) -> bool:
        """True while a response is incomplete."""
        return self._running is not None and not self._running.response_complete

    @property
    def request_in_progress(self) -> object:
        """The request whose response is incomplete, or the last one. Only for comparison with `is`."""
        return self._running

    @property
    def reading_is_paused(self) -> bool:
        """True if a disconnect would go unnoticed because the client's EOF is behind data that is not being read."""
        return self.flow.read_paused and not self.transport.is_closing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._end_send_timer()

    def on_response_complete(self) -> None:
        if not self.owns_connection:
            # The connection is being closed, so no pipelined request is started.
            self.server_state.total_requests += 1
            self._watch_sending()
            return
        super().on_response_complete()
        if self._refusal is not None and not self.under_way:
            self._send_refusal()

    def timeout_keep_alive_handler(self) -> None:
        self.detach()

    def detach(self) -> None:
        """Close the connection once the client has read the written data, at the latest after the send timeout."""
        self.transport.close()
        self._watch_sending()

    def close_after_response(self) -> None:
        """Close the connection after a completed request. Linger if its body may still be arriving."""
        if self._in_body and self.owns_connection:
            self._linger()
        else:
            self.detach()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None:
            return
        self._chunk = len(data)
        try:
            self._parse(data)
        except Refused as refused:
            self._refuse(refused.status, refused.reason)
            return
        if self._in_head:
            if self.owns_connection:
                self._watch_head(len(data))
            return
        if self._in_body and self.owns_connection:
            self._count_framing(len(data))
        if (
            self.timeout_keep_alive_task is None
            and self._response_complete
            and self._refusal is None
            and self.owns_connection
        ):
            # Any byte cancels uvicorn's timer: an empty line, or the rest of a body whose response is complete. Without
            # a new timer the connection could stay open indefinitely.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _watch_head(self, size: int) -> None:
        """Limit the size and the duration of an incomplete head."""
        self._head_bytes += size
        if self._head_bytes > self._head_limit:
            self._refuse(431, "head too large")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_timeout, self._on_head_timeout)

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Raises `Refused` for a request that must be refused."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stops after an upgrade request. uvicorn would drop the rest of `data`.
                data = data[upgrade.args[0] :]
                if self._should_upgrade():
                    self._become_websocket(data)
                    return
                if self.parser.get_method() == b"CONNECT":
                    # The gateway refuses CONNECT. The following bytes are meant for a tunnel that does not exist.
                    self._refusal = b""
                    return
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, Refused):
                    raise error.__context__ from None
                raise Refused(400, malformed_reason(data if self.cycle is None else b"", error)) from None

    def _become_websocket(self, rest: bytes) -> None:
        self._disarm()
        self.connections.discard(self)
        assert self.ws_protocol_class is not None
        protocol = cast("type[GuardedWebSocketProtocol]", self.ws_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.open(self.url, self.headers)
        if rest:
            protocol.data_received(rest)

    def _count_framing(self, size: int) -> None:
        """Limit the bytes received without body data between them.

        Nothing else limits chunk extensions, or trailer fields, which the parser keeps in memory.
        """
        if self._progress:
            self._progress = False
            self._bytes_without_body = 0
        else:
            self._bytes_without_body += size
            if self._bytes_without_body > self._head_limit:
                self._refuse(431, "trailers or chunk extensions too large")

    @property
    def owns_connection(self) -> bool:
        """True if the connection is open and was not handed over, for example to the WebSocket protocol."""
        return not self.transport.is_closing() and self.transport.get_protocol() is self

    @property
    def _response_complete(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header field as uvicorn does, but limit their number.

        Short fields take 15 times their size in memory.
        """
        headers = self.headers
        if len(headers) >= self._field_limit:
            raise Refused(431, "too many header fields")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._disarm()
        # The chunk may hold more than the head, so compute the exact size only if the sum exceeds the limit.
        if self._head_bytes + self._chunk > self._head_limit and self._head_size() > self._head_limit:
            raise Refused(431, "head too large")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0") or self.parser.get_method() == b"SOURCE":
            # The parser also accepts HTTP/0.9, HTTP/2.0 in HTTP/1 syntax, and Icecast (RFC 9110 section 15.6.6).
            raise Refused(505, "not HTTP/1.1")
        if b"#" in self.url:
            # Not allowed in a request target (RFC 9112 section 3.2); uvicorn would drop it silently (CVE-2021-39206).
            raise Refused(400, "fragment in the target")
        if self.url[:1] != b"/" and names_another_host(self.url, self.headers):
            raise Refused(400, "another host in the target than in Host")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refused(400, "too many pipelined requests")
        if self.parser.should_upgrade():
            self._check_upgrade()
        self.start_cycle(version)
        self._in_body = True
        self._bytes_without_body = 0
        if not self.parser.should_upgrade():
            # Fields from here on are trailers. uvicorn would add them to the headers after, or while, the gateway
            # validates those (RFC 9110 section 6.5.1).
            self.headers = []

    def _should_upgrade(self) -> bool:
        """Return True for a WebSocket handshake. HTTP/1.0 has no upgrades (RFC 9110 section 7.8)."""
        return self.parser.get_http_version() != "1.0" and super()._should_upgrade()

    def _check_upgrade(self) -> None:
        """Raise `Refused` for a WebSocket handshake that cannot be accepted."""
        if not self._should_upgrade():
            return
        if self.parser.get_method() != b"GET" or has_body(self.headers):
            raise Refused(400, "WebSocket handshake that is not a GET without a body")
        if self.under_way or self.pipeline:
            # The connection cannot become a WebSocket while responses are still to be written to it.
            raise Refused(400, "WebSocket handshake behind a request that waits for its response")

    def start_cycle(self, version: str) -> None:
        """Start processing the request. Its head is complete and within the limits; `version` is 1.1 or 1.0."""
        app = self.app
        if version == "1.0":
            # HTTP/1.0 has neither chunked encoding nor interim responses (RFC 9110 section 10.1.1).
            self.expect_100_continue = False
            self.app = cast("Any", CloseDelimited(cast("Any", app)))
        elif self.expect_100_continue and has_body(self.headers):
            self.app = cast("Any", ExpectContinueApp(cast("Any", app)))
        before = self.cycle
        super().on_headers_complete()
        self.app = app
        if self.cycle is not before:
            self.cycle.transport = cast("asyncio.Transport", self._cycle_transport)
            scope = cast("dict[str, Any]", self.scope)
            scope["akoya.connection"] = self
            if scope["method"] == "CONNECT":
                self.cycle.keep_alive = False

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if not self.owns_connection:
            return
        if self._in_head:
            if self.flow.read_paused:
                # The server has paused reading, so the delay is not caused by the client.
                self._head_timer = self.loop.call_later(self._head_timeout, self._on_head_timeout)
            else:
                self._refuse(408, "head too slow")
        elif self.cycle is None:
            # The client never started a request, so no response is due.
            self.transport.close()

    def _watch_sending(self) -> None:
        if self._send_timer is None and self.transport.get_write_buffer_size():
            self._send_timer = self.loop.call_later(self._send_timeout, self._on_send_timeout)

    def _on_send_timeout(self) -> None:
        self._send_timer = None
        if self.transport.get_protocol() is self:
            self.transport.abort()

    def _end_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _refuse(self, status: int, reason: str) -> None:
        """Refuse the request that is being received, and close the connection.

        Pending responses are completed first. In that case no error response is sent, because the client pipelined.
        """
        self._disarm()
        self._refusal_log.add(status, reason)
        alone = self._in_body or not self.under_way
        self._refusal = problem_response(status, reason) if alone and not self.pipeline else b""
        if self._in_body:
            self._abandon_last()
        if self.owns_connection and not self.under_way:
            self._send_refusal()

    def _abandon_last(self) -> None:
        """Drop the request that was parsed last: its body can no longer be completed."""
        if self.pipeline:
            self.pipeline.popleft()
        elif self._running is not None and not self._running.response_complete:
            _disconnect(self._running)
            if self._running.response_started:
                # The client must see that the response is truncated.
                self.detach()
            else:
                self._send_refusal()

    def _send_refusal(self) -> None:
        assert self._refusal is not None
        self._unset_keepalive_if_required()
        self.transport.write(self._refusal)
        self._linger()

    def _linger(self) -> None:
        LingeringClose(self.transport, self, self.loop)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    # uvicorn would write `100 Continue` to the lost connection and log a traceback.
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
