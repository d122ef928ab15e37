"""The plain case below ASGI: a request without a body, a known session, a fresh grant, an idle upstream connection.

It asks the same desk, strips and signs with the same `Passing`, writes the head with the same `RequestWriter` and uses
the same pool as the ASGI path; what it saves is the event loop: no task, no ASGI messages, no futures. What was read of
a request is remembered (`known_requests`), and what was decided for its session stands for a while (`standing`).
Whatever is not plain (or goes wrong before a byte of the answer) is handed to the ASGI path, which decides again from
the start. `tests/fast_lane/` holds both paths side by side, byte by byte.

`docs/performance.md` has what it gains; `akoya-gateway run --no-fast-lane` turns it off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from akoya_gateway.access.ask import Ask, Headers
from akoya_gateway.access.paths import judge
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.faces.admission import Admitted
from akoya_gateway.faces.dates import Dated, Dates
from akoya_gateway.faces.engine import Engine
from akoya_gateway.faces.gateway import Gateway
from akoya_gateway.faces.known_requests import KnownRequests, Line, Sender
from akoya_gateway.faces.lifespan import App, Receive, Scope, Send
from akoya_gateway.faces.responses import TOKEN_REJECTED, is_event_stream
from akoya_gateway.faces.sockets import OpenSocket
from akoya_gateway.faces.standing import Standing
from akoya_gateway.operations.http_protocol import GuardedHttpProtocol
from akoya_gateway.signing.encoding import lines as as_lines
from akoya_gateway.upstream.connection import Connection
from akoya_gateway.upstream.failures import ClosedEarly
from akoya_gateway.upstream.forwarded import VIA
from akoya_gateway.upstream.known_heads import KnownHead
from akoya_gateway.upstream.proxy import ReverseProxy
from akoya_gateway.upstream.request import IDEMPOTENT, Body
from akoya_gateway.upstream.response import ResponseHead

_VIA_LINE = b"via: " + VIA + b"\r\n"


class FastLane:
    """Decides whether a request is plain. `proxy` gives the reverse proxy in force, `clock` is the gateway's."""

    def __init__(
        self, gateway: Gateway, proxy: Callable[[], ReverseProxy], dates: Dates, clock: Clock = time.time
    ) -> None:
        self.gateway = gateway
        self.dates = dates
        self._clock = clock
        self._proxy_in_force = proxy
        self._known = KnownRequests()
        self._engine: Engine | None = None
        self._proxy: ReverseProxy | None = None

    def find(self, data: bytes, peer: str | None) -> tuple[Line, Sender] | None:
        """What is known of a request by its bytes; see `read` for one that has been parsed."""
        if self.gateway.running is not self._engine or self._proxy_in_force() is not self._proxy:
            self._renew()
        return self._known.find(data, peer)

    def read(
        self, method: str, url: bytes, headers: Headers, peer: str | None, scheme: str, data: bytes | None
    ) -> tuple[Line, Sender] | None:
        """Judge a request as far as it does not depend on who asks; None: it is not plain. `data`: its bytes, where
        they came in one piece, to be found by the next time."""
        if self.gateway.running is not self._engine or self._proxy_in_force() is not self._proxy:
            self._renew()
        try:
            line = self._line(method, url)
            sender = None if line is None else self._sender(headers, peer, scheme)
        except GatewayError:
            return None
        if line is None or sender is None:
            return None
        if data is not None:
            self._known.keep(data, line, sender, url)
        return line, sender

    def depart(self, line: Line, sender: Sender, protocol: FastHttpProtocol) -> Passage | None:
        """None: not plain, or not now. Nothing has happened then, and the ASGI path answers, refusals included."""
        engine, proxy = self._engine, self._proxy
        if engine is None or proxy is None:
            return None
        admission: Standing | Admitted | None
        try:
            if not engine.desk.standings.serve:
                admission = engine.desk.admit_now(self.ask(line, sender), line.path)
                ours = as_lines(admission.headers) if admission is not None else b""
            elif line.public is not None:
                admission, ours = line.public, b""
            else:
                now = self._clock()
                admission = standing = engine.desk.standings.of(sender.fields, line.match, now)
                if standing is None:
                    return None
                ours = standing.prepared.lines(line.verb, sender.fields.authority, line.raw_path, line.query, now)
        except GatewayError:
            return None
        if admission is None:
            return None
        connection = proxy.pool.take()
        if connection is None:
            return None
        passage = Passage(protocol, self, engine, line, sender, admission, connection)
        connection.start(
            b"".join((line.start, sender.before, ours, sender.after)), passage, head_only=line.head_only
        )
        return passage

    def ask(self, line: Line, sender: Sender) -> Ask:
        return self.gateway.ask(line.method, line.raw_path, line.query, sender.headers, sender.peer)

    def failing(self, error: GatewayError) -> App:
        """An app that answers with what went wrong, as the ASGI path would have."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.gateway.answer_error(error, scope, send)

        return Dated(app, self.dates)

    def _renew(self) -> None:
        """Another configuration: what was judged under the last one is worth nothing."""
        self._engine = self.gateway.running
        self._proxy = self._proxy_in_force()
        self._known.clear()

    def _line(self, method: str, url: bytes) -> Line | None:
        engine, proxy = self._engine, self._proxy
        if engine is None or proxy is None or url[:1] != b"/" or b"#" in url:
            return None
        raw_path, _, query = url.partition(b"?")
        path = judge(raw_path)
        match = None if engine.routes.own(path) else engine.desk.match(method, path)
        if match is None:
            return None
        verb = proxy.writer.judge_line(method, url)
        public = not engine.desk.needs_owner(match)
        return Line(verb, raw_path, query, path, match, public=public, idempotent=verb in IDEMPOTENT)

    def _sender(self, headers: Headers, peer: str | None, scheme: str) -> Sender | None:
        assert self._engine is not None
        assert self._proxy is not None
        fields = self._engine.passing.read(headers)
        section = self._proxy.writer.section(fields.onward, peer=peer, scheme=scheme)
        if section.body is not Body.NONE or not fields.authority or fields.override:
            return None
        return Sender(headers, peer, fields, section.fields, section.forwarded)


class _Unheard:
    """Stands where uvicorn's cycles have an event: nobody waits for ours."""

    def set(self) -> None:
        return


_UNHEARD = _Unheard()


class Passage:
    """A request on its way in the lane: the `upstream.connection.Sink` that writes to the client, and, for uvicorn, the
    cycle that is under way on the connection (`response_complete`, `disconnected`, `keep_alive`, ...)."""

    __slots__ = (
        "_admission",
        "_ask",
        "_began",
        "_chunked",
        "_connection",
        "_engine",
        "_lane",
        "_line",
        "_open",
        "_protocol",
        "_sender",
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "started",
    )

    def __init__(
        self,
        protocol: FastHttpProtocol,
        lane: FastLane,
        engine: Engine,
        line: Line,
        sender: Sender,
        admission: Standing | Admitted,
        connection: Connection,
    ) -> None:
        self._protocol = protocol
        self._lane = lane
        self._engine = engine
        self._line = line
        self._sender = sender
        self._admission = admission
        self._connection = connection
        self._ask: Ask | None = None
        self._chunked = False
        self._open: OpenSocket | None = None
        self._began = lane.gateway.began()
        self.started = False
        self.body = b""
        self.more_body = False
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.message_event = _UNHEARD

    @property
    def ask(self) -> Ask:
        if self._ask is None:
            self._ask = self._lane.ask(self._line, self._sender)
        return self._ask

    def client_gone(self) -> None:
        """The upstream need not go on."""
        if not self.response_complete:
            self.disconnected = True
            self.response_complete = True
            self._forget()
            self._connection.abort()

    def resume(self) -> None:
        """The client reads again."""
        if not self.response_complete:
            self._connection.resume_reading()

    # -- upstream.connection.Sink

    def on_answer(self, known: KnownHead, body: bytes) -> None:
        protocol = self._protocol
        made = known.made
        if not made or protocol.server_state.default_headers:
            made = known.made = self._made(known)
            if not made:
                self.on_head(known.status, known.head)
                if body:
                    self.on_body(body)
                self.on_end()
                return
        protocol.transport.write(made + body)
        self._lane.gateway.answered(self, known.status, self._admission.rule.label, self._began)
        self.response_complete = True
        if self._open is not None:
            self._forget()
        protocol.arrived()

    def on_head(self, status: int, head: ResponseHead) -> None:
        self.started = True
        protocol = self._protocol
        if protocol.server_state.default_headers:
            # The server is draining.
            self.keep_alive = False
        protocol.transport.write(self._written(status, head))
        if is_event_stream(head.headers):
            self._connection.be_patient()
        self._lane.gateway.answered(self, status, self._admission.rule.label, self._began)
        grant = self._admission.grant
        if grant is not None and any(name == TOKEN_REJECTED for name, _ in head.headers):
            protocol.run_aside(self._engine.keeper.report_stale(grant))

    def on_body(self, chunk: bytes) -> None:
        protocol = self._protocol
        protocol.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        if protocol.flow.write_paused:
            self._connection.pause_reading()

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
        again = self._line.idempotent and self._connection.served > 1
        stale = isinstance(error, ClosedEarly) and error.untouched and again
        # It may have been closing just as we wrote: the ASGI path starts over. Anything else it answers as its own.
        self._protocol.hand_over(self, None if stale else self._lane.failing(error))

    def scope(self) -> Scope:
        """The ASGI scope of this request, as uvicorn would have filled it."""
        line = self._line
        scope = self._protocol.make_scope(self._sender.headers)
        scope["method"] = line.method
        scope["path"] = unquote(line.raw_path.decode("ascii"))
        scope["raw_path"] = line.raw_path
        scope["query_string"] = line.query
        return scope

    def on_writable(self) -> None:
        return

    def on_tick(self) -> None:
        """It takes longer: a download, a stream. From now on its admission is looked after."""
        if self._open is None and self._admission.owner is not None:
            self._open = OpenSocket(self.ask, self._line.path, self._cut)
            self._lane.gateway.sockets.add(self._open)

    # -- inside

    def _written(self, status: int, head: ResponseHead) -> bytes:
        """The head as the client gets it."""
        default_headers = self._protocol.server_state.default_headers
        lines = [STATUS_LINE[status]]
        lines += [b"%b: %b\r\n" % header for header in default_headers]
        dated = framed = False
        for name, value in head.headers:
            if name[:6] == b"akoya-":
                # An app that echoes what it received must not hand a token to the browser.
                continue
            dated |= name == b"date"
            framed |= name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(_VIA_LINE)
        if not dated:
            lines.append(b"%b: %b\r\n" % self._lane.dates.header())
        if not self.keep_alive and not default_headers:
            lines.append(b"connection: close\r\n")
        if not framed and not self._line.head_only and status not in (204, 304):
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _made(self, known: KnownHead) -> bytes:
        """The same for every client, to be kept; empty where it is not, or where there is more to do than to write."""
        names = {name for name, _ in known.head.headers}
        if (
            self._protocol.server_state.default_headers
            or b"date" not in names
            or any(name[:6] == b"akoya-" for name in names)
            or is_event_stream(known.head.headers)
        ):
            return b""
        return self._written(known.status, known.head)

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
        self._peer: str | None = None
        self._between = True
        """The parser stands between two messages: nothing of a next one has been given to it."""
        self._alone: bytes | None = None
        """What is being parsed, where it began between two messages."""
        self._arrived_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else None

    def data_received(self, data: bytes) -> None:
        """A request that is known never sees the parser, which stays where it is."""
        if not self._between or self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            super().data_received(data)
            return
        found = self._lane.find(data, self._peer)
        if found is not None and self._depart(*found):
            return
        self._alone = data
        super().data_received(data)
        self._alone = None

    def on_message_begin(self) -> None:
        """As uvicorn's, but the scope is made only for a request that needs one (see `make_scope`)."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._between = False
        self._in_head = True
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = self.parser.should_keep_alive() and not self.parser.should_upgrade()

    def make_scope(self, headers: Headers) -> Scope:
        """The scope that uvicorn begins a request with, around these headers."""
        url, present, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, present, expects
        scope = cast("Scope", self.scope)
        scope["headers"] = headers
        return scope

    def start_cycle(self) -> None:
        parser = self.parser
        if (
            (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        ):
            method = parser.get_method().decode("ascii")
            scheme = self.scheme or "http"
            read = self._lane.read(method, self.url, self.headers, self._peer, scheme, self._alone)
            if read is not None and self._depart(*read):
                return
        self.make_scope(self.headers)
        super().start_cycle()

    def _depart(self, line: Line, sender: Sender) -> bool:
        passage = self._lane.depart(line, sender, self)
        if passage is None:
            return False
        if self.timeout_keep_alive_task is not None or self._head_timer is not None:
            self._unset_keepalive_if_required()
            self._disarm()
        self._passage = passage
        self.cycle = cast("RequestResponseCycle", passage)
        return True

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
