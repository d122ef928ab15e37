"""The plain case below ASGI: a request without a body, a known session, a fresh grant, an idle upstream connection.

It asks the same desk, strips and signs with the same `Passing`, writes the head with the same `RequestWriter` and uses
the same pool as the ASGI path; what it saves is the event loop: no task, no ASGI messages, no futures. Whatever is not
plain (or goes wrong before a byte of the answer) is handed to the ASGI path, which decides again from the start.
`tests/fast_lane/` holds both paths side by side, byte by byte.

`docs/performance.md` has what it gains; `akoya-gateway run --no-fast-lane` turns it off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from akoya_gateway.access.ask import Ask, Headers
from akoya_gateway.access.paths import judge
from akoya_gateway.errors import GatewayError
from akoya_gateway.faces.admission import Admitted
from akoya_gateway.faces.dates import Dated, Dates
from akoya_gateway.faces.engine import Engine
from akoya_gateway.faces.gateway import Gateway
from akoya_gateway.faces.lifespan import App, Receive, Scope, Send
from akoya_gateway.faces.responses import TOKEN_REJECTED, is_event_stream
from akoya_gateway.faces.sockets import OpenSocket
from akoya_gateway.operations.http_protocol import GuardedHttpProtocol
from akoya_gateway.upstream.connection import Connection
from akoya_gateway.upstream.failures import ClosedEarly
from akoya_gateway.upstream.forwarded import VIA
from akoya_gateway.upstream.proxy import ReverseProxy
from akoya_gateway.upstream.request import Body, Outgoing
from akoya_gateway.upstream.response import ResponseHead

_VIA_LINE = b"via: " + VIA + b"\r\n"


class Departure:
    """One request that the lane takes: everything is decided, and there is a connection for it."""

    __slots__ = ("admitted", "ask", "connection", "engine", "outgoing")

    def __init__(
        self, engine: Engine, ask: Ask, admitted: Admitted, outgoing: Outgoing, connection: Connection
    ) -> None:
        self.engine = engine
        self.ask = ask
        self.admitted = admitted
        self.outgoing = outgoing
        self.connection = connection


class FastLane:
    """Decides whether a request is plain. `proxy` gives the reverse proxy in force."""

    def __init__(self, gateway: Gateway, proxy: Callable[[], ReverseProxy], dates: Dates) -> None:
        self.gateway = gateway
        self.dates = dates
        self._proxy = proxy

    def depart(self, method: str, url: bytes, headers: Headers, peer: str | None, scheme: str) -> Departure | None:
        """None: not plain, or not now. Nothing has happened then, and the ASGI path answers, refusals included."""
        engine = self.gateway.running
        if engine is None or url[:1] != b"/" or b"#" in url:
            return None
        raw_path, _, query = url.partition(b"?")
        ask = self.gateway.ask(method, raw_path, query, headers, peer)
        try:
            path = judge(raw_path)
            if engine.routes.own(path):
                return None
            admitted = engine.desk.admit_now(ask, path)
            if admitted is None:
                return None
            proxy = self._proxy()
            onward = engine.passing.strip(headers) + admitted.headers
            outgoing = proxy.writer.write(method, url if query else raw_path, onward, peer=peer, scheme=scheme)
        except GatewayError:
            return None
        if outgoing.body is not Body.NONE:
            return None
        connection = proxy.pool.take()
        return None if connection is None else Departure(engine, ask, admitted, outgoing, connection)

    def failing(self, error: GatewayError) -> App:
        """An app that answers with what went wrong, as the ASGI path would have."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.gateway.answer_error(error, scope, send)

        return Dated(app, self.dates)


class _Unheard:
    """Stands where uvicorn's cycles have an event: nobody waits for ours."""

    def set(self) -> None:
        return


class Passage:
    """A request on its way in the lane: the `upstream.connection.Sink` that writes to the client, and, for uvicorn, the
    cycle that is under way on the connection (`response_complete`, `disconnected`, `keep_alive`, ...)."""

    __slots__ = (
        "_began",
        "_chunked",
        "_departure",
        "_head_only",
        "_lane",
        "_open",
        "_protocol",
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "started",
    )

    def __init__(self, protocol: FastHttpProtocol, lane: FastLane, departure: Departure) -> None:
        self._protocol = protocol
        self._lane = lane
        self._departure = departure
        self._head_only = departure.outgoing.head_only
        self._chunked = False
        self._open: OpenSocket | None = None
        self._began = lane.gateway.began()
        self.started = False
        self.body = bytearray()
        self.more_body = False
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.message_event = _Unheard()

    def begin(self) -> None:
        outgoing = self._departure.outgoing
        self._departure.connection.start(outgoing.head, self, head_only=outgoing.head_only)

    def client_gone(self) -> None:
        """The upstream need not go on."""
        if not self.response_complete:
            self.disconnected = True
            self.response_complete = True
            self._forget()
            self._departure.connection.abort()

    def resume(self) -> None:
        """The client reads again."""
        if not self.response_complete:
            self._departure.connection.resume_reading()

    # -- upstream.connection.Sink

    def on_head(self, status: int, head: ResponseHead) -> None:
        protocol, departure = self._protocol, self._departure
        self.started = True
        lines = [STATUS_LINE[status]]
        for name, value in protocol.server_state.default_headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"connection":
                # The server is draining.
                self.keep_alive = False
        dated = framed = rejected = False
        for name, value in head.headers:
            if name[:6] == b"akoya-":
                # An app that echoes what it received must not hand a token to the browser.
                rejected |= name == TOKEN_REJECTED
                continue
            dated |= name == b"date"
            framed |= name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(_VIA_LINE)
        if not dated:
            lines.append(b"%b: %b\r\n" % self._lane.dates.header())
        if not self.keep_alive and not protocol.server_state.default_headers:
            lines.append(b"connection: close\r\n")
        if not framed and not self._head_only and status not in (204, 304):
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        protocol.transport.write(b"".join(lines))
        if is_event_stream(head.headers):
            departure.connection.be_patient()
        self._lane.gateway.answered(departure.ask, status, departure.admitted, self._began)
        if rejected and departure.admitted.grant is not None:
            protocol.run_aside(departure.engine.keeper.report_stale(departure.admitted.grant))

    def on_body(self, chunk: bytes) -> None:
        protocol = self._protocol
        protocol.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        if protocol.flow.write_paused:
            self._departure.connection.pause_reading()

    def on_trailers(self, headers: Headers) -> None:
        """uvicorn cannot send them, so neither path does."""

    def on_end(self) -> None:
        if self._chunked:
            self._protocol.transport.write(b"0\r\n\r\n")
        self.response_complete = True
        self._forget()
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.arrived()

    def on_failure(self, error: GatewayError) -> None:
        self._forget()
        self.response_complete = True
        if self.started:
            # A torso must not pass for a whole answer.
            self._protocol.transport.close()
            return
        outgoing, connection = self._departure.outgoing, self._departure.connection
        stale = isinstance(error, ClosedEarly) and error.untouched and outgoing.idempotent and connection.served > 1
        # It may have been closing just as we wrote: the ASGI path starts over. Anything else it answers as its own.
        self._protocol.hand_over(self, None if stale else self._lane.failing(error))

    def scope(self) -> Scope:
        """The ASGI scope of this request, as uvicorn would have filled it."""
        ask = self._departure.ask
        scope = self._protocol.make_scope(ask.headers)
        scope["method"] = ask.method
        scope["path"] = unquote(ask.raw_path.decode("ascii"))
        scope["raw_path"] = ask.raw_path
        scope["query_string"] = ask.query
        return scope

    def on_writable(self) -> None:
        return

    def on_tick(self) -> None:
        """It takes longer: a download, a stream. From now on its admission is looked after."""
        departure = self._departure
        if self._open is None and departure.admitted.owner is not None:
            self._open = OpenSocket(departure.ask, judge(departure.ask.raw_path), self._cut)
            self._lane.gateway.sockets.add(self._open)

    async def _cut(self, code: int) -> None:
        self._protocol.transport.abort()

    def _forget(self) -> None:
        if self._open is not None:
            self._lane.gateway.sockets.remove(self._open)
            self._open = None


class FastHttpProtocol(GuardedHttpProtocol):
    """uvicorn's protocol with the lane in front of its ASGI cycles."""

    def __init__(self, *args: Any, lane: FastLane, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lane = lane
        self._passage: Passage | None = None
        self._arrived_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def on_message_begin(self) -> None:
        """As uvicorn's, but the scope is made only for a request that needs one (see `make_scope`)."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._head_bytes = 0

    def make_scope(self, headers: Headers) -> Scope:
        """The scope that uvicorn begins a request with, around these headers."""
        url, present, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, present, expects
        scope = cast("Scope", self.scope)
        scope["headers"] = headers
        return scope

    def start_cycle(self) -> None:
        cycle, parser = self.cycle, self.parser
        if (
            (cycle is None or cycle.response_complete)
            and not self.pipeline
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        ):
            peer = self.client[0] if self.client else None
            method = parser.get_method().decode("ascii")
            departure = self._lane.depart(method, self.url, self.headers, peer, self.scheme or "http")
            if departure is not None:
                passage = self._passage = Passage(self, self._lane, departure)
                self.cycle = cast("RequestResponseCycle", passage)
                passage.begin()
                return
        self.make_scope(self.headers)
        super().start_cycle()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._passage is not None:
            self._passage.client_gone()
            self._passage = None
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._passage is not None:
            self._passage.resume()

    def arrived(self) -> None:
        """The passage is over; what was pipelined behind it may start."""
        self._passage = None
        if self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._arrived_at = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_if_idle)

    def _look_if_idle(self) -> None:
        """uvicorn sets and cancels a keep-alive timer for each request; the lane has one that looks at the time."""
        self._idle_timer = None
        busy = self._in_head or (self.cycle is not None and not self.cycle.response_complete)
        if busy or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            # Whoever is at work now sees to it: the next arrival, the head's timer, or uvicorn's own.
            return
        left = self._arrived_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._look_if_idle)
        else:
            self.transport.close()

    def hand_over(self, passage: Passage, app: App | None) -> None:
        """Start over on the ASGI path; `app` answers in place of the gateway, if given."""
        self._passage = None
        if self.transport.is_closing():
            return
        cycle = RequestResponseCycle(
            scope=cast("Any", passage.scope()),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=passage.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.message_event.set()
        if cast("object", self.cycle) is passage:
            self.cycle = cycle
        self._start_asgi_task(cycle, cast("Any", app) or self.app)

    def run_aside(self, work: Coroutine[Any, Any, object]) -> None:
        """Something that the answer does not wait for."""
        task: asyncio.Task[Any] = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
