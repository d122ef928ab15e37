"""uvicorn's HTTP protocol with the limits it lacks: the size of a request's head, the time it may take, and the time
that a connection may be of no use to anybody whatever trickles in.

Also: an unreadable request behind one that is still being answered ends the connection, where uvicorn would write its
400 into the answer under way; and so does an answer that comes before `100 Continue` (see `expectation`).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from akoya_gateway.operations.expectation import Expected, brings_a_body
from akoya_gateway.operations.http_1_0 import CloseDelimited

HEAD_TIMEOUT = 20.0
"""Seconds from a connection's start, or from a head's first byte, until the head must be complete."""

SEND_TIMEOUT = 60.0
"""Seconds in which a client must take what makes its connection writable again: about 48 KB. Until then it holds
memory here, and a connection to the upstream that others could use."""

MOST_WAITING = 64
"""Requests that may wait behind the one that is answered. Some kilobytes each, and 20 bytes make one."""

_TITLES = {
    400: ("bad-request", "The request could not be understood"),
    408: ("head-timeout", "The request took too long to arrive"),
    431: ("head-too-large", "The request's headers are too large"),
    505: ("http-version", "HTTP/1.1 is spoken here"),
}


class HeadTooLarge(Exception):
    """Ends parsing from within a callback."""


class FragmentSent(Exception):
    """Likewise."""


class OtherProtocol(Exception):
    """Likewise."""


class TooManyWaiting(Exception):
    """Likewise."""


class GuardedHttpProtocol(HttpToolsProtocol):
    """`head_limit` in bytes: request line and headers together."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_limit: int = 65_536,
        head_timeout: float = HEAD_TIMEOUT,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_limit = head_limit
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timeout = send_timeout
        self._send_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._chunk = 0
        self._in_head = self._in_body = self._progress = False
        self._stalled = 0
        self._refused = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self._head_timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._end_send_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._end_send_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_sending()

    def timeout_keep_alive_handler(self) -> None:
        self.part()

    def part(self) -> None:
        """Close the connection, when what is written has been taken, but not much later."""
        self.transport.close()
        self._watch_sending()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self._head_limit:
                self._refuse(431)
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self._head_timeout, self._head_is_late)
            return
        if self._in_body:
            self._weigh_what_is_no_content(len(data))
        if self.timeout_keep_alive_task is None and self._answered and self.in_charge:
            # Any byte ends uvicorn's timer: an empty line, or the rest of a body whose answer is out. Without a new one
            # the connection could stay for ever.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _weigh_what_is_no_content(self, size: int) -> None:
        """Nothing else limits trailer fields, which the parser keeps, or the extensions of a chunk."""
        if self._progress:
            self._progress = False
            self._stalled = 0
        else:
            self._stalled += size
            if self._stalled > self._head_limit:
                self.part()

    @property
    def in_charge(self) -> bool:
        """The connection is open, and has not become a WebSocket, which is its own protocol's."""
        return not self.transport.is_closing() and self.transport.get_protocol() is self

    @property
    def _answered(self) -> bool:
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

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._stalled = 0
        if self._head_timer is not None:
            self._disarm()
        # The chunk may hold more than the head, so it is weighed exactly only where it could be too much.
        if self._head_bytes + self._chunk > self._head_limit and self._weight() > self._head_limit:
            self._refused = 431
            raise HeadTooLarge
        if self.parser.get_http_version() not in ("1.1", "1.0") or self.parser.get_method() == b"SOURCE":
            # The parser also takes HTTP/0.9, HTTP/2.0 in this form, and Icecast (RFC 9110 section 15.6.6).
            self._refused = 505
            raise OtherProtocol
        if b"#" in self.url:
            # Not part of a request (RFC 9112 section 3.2); uvicorn would drop it unseen (CVE-2021-39206).
            raise FragmentSent
        if len(self.pipeline) >= MOST_WAITING:
            raise TooManyWaiting
        self.start_cycle()
        if not self.parser.should_upgrade():
            # Fields from here on are trailers. uvicorn would add them to the headers, which have been judged by then or
            # are being judged (RFC 9110 section 6.5.1).
            self.headers = []

    def start_cycle(self) -> None:
        """The head is whole and fits: begin to answer."""
        app = self.app
        if self.parser.get_http_version() == "1.0":
            # It knows neither chunks nor interim responses (RFC 9110 section 10.1.1).
            self.expect_100_continue = False
            self.app = cast("Any", CloseDelimited(cast("Any", app)))
        elif self.expect_100_continue and brings_a_body(self.headers):
            self.app = cast("Any", Expected(cast("Any", app)))
        super().on_headers_complete()
        self.app = app

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for whatever the parser did not take."""
        self._refuse(self._refused)

    def _weight(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            if self._in_head:
                self._refuse(408)
            elif self.cycle is None:
                # Nothing was ever asked: nothing is to be answered.
                self.transport.close()

    def _watch_sending(self) -> None:
        if self._send_timer is None and self.transport.get_write_buffer_size():
            self._send_timer = self.loop.call_later(self._send_timeout, self._takes_nothing)

    def _takes_nothing(self) -> None:
        self._send_timer = None
        if self.transport.get_protocol() is self:
            self.transport.abort()

    def _end_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _refuse(self, status: int) -> None:
        self._disarm()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_problem(status))
        self.part()

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _problem(status: int) -> bytes:
    """RFC 9457, for a request that never became one."""
    code, title = _TITLES[status]
    kind = f"urn:akoya-gateway:problem:{code}"
    body = json.dumps({"type": kind, "title": title, "status": status}, separators=(",", ":")).encode()
    return (
        STATUS_LINE[status] + b"content-type: application/problem+json\r\n"
        b"cache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
