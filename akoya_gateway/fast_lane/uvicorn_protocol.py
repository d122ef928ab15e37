"""uvicorn's HTTP protocol, with the fast lane in front of its ASGI cycles."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from akoya_gateway.access.request import Headers
from akoya_gateway.fast_lane.forward_auth import EncodedResponse
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.lane_exchange import LaneExchange
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget
from akoya_gateway.server.http_protocol import LimitedHttpProtocol


class FastLaneProtocol(LimitedHttpProtocol):
    """HTTP protocol that tries the fast lane for each request before it starts an ASGI cycle."""

    def __init__(self, *args: Any, lane: FastLane, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lane = lane
        self._exchange: LaneExchange | None = None
        self._peer: str | None = None
        self._between_requests = True
        """True if the parser is between two messages and has not received any byte of the next one."""
        self._single_request: bytes | None = None
        """The bytes being parsed, if they started at a message boundary."""
        self._declined = False
        """True if the lane has already declined the request being parsed."""
        # uvicorn sets these when it starts to parse, which may never happen.
        self.url = b""
        self.headers = []
        self._response_sent_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else None

    def data_received(self, data: bytes) -> None:
        """Handle received data.

        A request that the lane accepts is not given to uvicorn's parser, whose state does not change.
        """
        if not self._between_requests or not self._free:
            super().data_received(data)
            return
        found = self._lane.parse(data, self._peer)
        if found is not None:
            if self._dispatch(*found):
                return
            # The lane cannot handle it now. Do not try again after parsing.
            self._declined = True
        elif not self.server_state.default_headers and (reply := self._lane.reply(data, self._peer)) is not None:
            self._write(reply)
            return
        self._single_request = data
        super().data_received(data)
        self._single_request = None
        self._declined = False

    @property
    def _free(self) -> bool:
        """True if no request is in progress and the client reads its responses.

        The lane does not wait for a client that does not read, so responses would accumulate in memory. On the ASGI
        path the next response waits until the client reads.
        """
        # Same as `under_way`, but without a call, because this runs for each request.
        running = self._running
        over = running is None or running.response_complete
        return over and not self.pipeline and not self.flow.write_paused

    def on_message_begin(self) -> None:
        """Reset the parser state as uvicorn does, but do not create the scope.

        Not every request needs one; see `make_scope`.
        """
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._between_requests = False
        self._in_head = True
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between_requests = self.parser.should_keep_alive() and not self.parser.should_upgrade()

    def make_scope(self, headers: Headers) -> Scope:
        """Return the scope that uvicorn creates for a request, with these headers."""
        url, present, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, present, expects
        scope = cast("Scope", self.scope)
        scope["headers"] = headers
        return scope

    def start_cycle(self, version: str) -> None:
        parser = self.parser
        if (
            not self._declined
            and self._free
            and version == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        ):
            method = parser.get_method().decode("ascii")
            scheme = self.scheme or "http"
            read = self._lane.read(method, self.url, self.headers, self._peer, scheme, self._single_request)
            if read is not None and self._dispatch(*read):
                return
        self.make_scope(self.headers)
        super().start_cycle(version)

    def _dispatch(self, target: CachedTarget, headers: CachedHeaders) -> bool:
        dispatch = self._lane.dispatch(target, headers)
        if dispatch is None:
            return False
        self._busy()
        cycle: Any = LaneExchange(self, self._lane, target, headers, dispatch)
        self._exchange = self.cycle = self._running = cycle
        return True

    def _write(self, reply: EncodedResponse) -> None:
        self._busy()
        began = self._lane.gateway.started_at()
        self.transport.write(reply.content)
        self._lane.gateway.record_response(reply, 200, reply.rule, began)
        self.on_response_sent()

    def _busy(self) -> None:
        """Stop the keep-alive and request head timers, because a request has arrived."""
        if self.timeout_keep_alive_task is not None or self._head_timer is not None:
            self._unset_keepalive_if_required()
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._exchange is not None:
            self._exchange.client_gone()
            self._exchange = None
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.resume()

    def on_response_sent(self) -> None:
        """End the exchange and start the next pipelined request."""
        self._exchange = None
        if self.pipeline or self._refusal is not None:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._response_sent_at = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """Close the connection if it has been idle for the keep-alive timeout.

        uvicorn sets and cancels a timer for each request. The lane uses one timer that compares timestamps.
        """
        self._idle_timer = None
        busy = self._in_head or self.under_way
        if busy or self.timeout_keep_alive_task is not None or not self.owns_connection:
            # Another timer or event covers this: the next request, the timer for the request head, or uvicorn's own
            # timer.
            return
        left = self._response_sent_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._close_if_idle)
        else:
            self.detach()

    def fall_back(self, exchange: LaneExchange, app: ASGIApp | None, *, retry: bool) -> None:
        """Handle the request again on the ASGI path.

        Args:
            exchange: The exchange that cannot continue.
            app: Sends the response instead of the gateway, if given.
            retry: True if the request has already been sent to the upstream.
        """
        self._exchange = None
        if self.transport.is_closing():
            return
        scope = exchange.scope()
        if retry:
            scope["akoya.again"] = True
        cycle = RequestResponseCycle(
            scope=cast("Any", scope),
            transport=cast("asyncio.Transport", self._cycle_transport),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=exchange.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.message_event.set()
        if cast("object", self.cycle) is exchange:
            self.cycle = cycle
        self._start_asgi_task(cycle, cast("Any", app) or self.app)

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine that the response does not wait for."""
        task: asyncio.Task[Any] = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
