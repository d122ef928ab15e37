"""A request on its way in the fast lane, from the upstream's answer to the client's connection."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.admission.decision_cache import Standing
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.request_cache import Line, Sender
from akoya_gateway.gateway.connection_monitor import OpenSocket
from akoya_gateway.gateway.hidden import SUSPECT
from akoya_gateway.gateway.lifespan import Scope
from akoya_gateway.gateway.response_filter import TOKEN_REJECTED, is_event_stream
from akoya_gateway.gateway.runtime import Engine
from akoya_gateway.upstream.errors import ClosedEarly
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.forwarded_headers import VIA
from akoya_gateway.upstream.http.response_head import Framing, ResponseHead
from akoya_gateway.upstream.http.response_head_cache import PlainHead

if TYPE_CHECKING:
    from akoya_gateway.fast_lane.lane import FastLane
    from akoya_gateway.fast_lane.uvicorn_protocol import FastHttpProtocol

_VIA_LINE = b"via: " + VIA + b"\r\n"


class _Unheard:
    """Stands where uvicorn's cycles have an event: nobody waits for ours."""

    def set(self) -> None:
        return


_UNHEARD = _Unheard()


class Passage:
    """A request on its way in the lane: the `upstream.http.interfaces.Sink` that writes to the client, and, for
    uvicorn, the cycle that is under way on the connection (`response_complete`, `disconnected`, `keep_alive`, ...)."""

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

    # -- upstream.http.interfaces.Sink

    def on_answer(self, head: PlainHead, body: bytes) -> None:
        protocol = self._protocol
        if head.special or protocol.server_state.default_headers:
            self.on_head(head.status, ResponseHead(head.headers, Framing.LENGTH, close=False, trailers=False))
            if body:
                # Not by `on_body`: the connection is no longer ours to pause.
                self._write(body)
            self.on_end()
            return
        date = b"" if head.dated else b"%b: %b\r\n" % self._lane.dates.header()
        protocol.transport.write(b"".join((STATUS_LINE[head.status], head.wire, _VIA_LINE, date, b"\r\n", body)))
        self._lane.gateway.answered(self, head.status, self._admission.rule.label, self._began)
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
        self._write(chunk)
        if self._protocol.flow.write_paused:
            self._connection.pause_reading()

    def on_trailers(self, headers: Headers) -> None:
        """uvicorn cannot send them, so neither path does."""

    def on_end(self) -> None:
        if self._chunked:
            self._protocol.transport.write(b"0\r\n\r\n")
        self.response_complete = True
        self._forget()
        if not self.keep_alive:
            self._protocol.part()
        self._protocol.arrived()

    def on_failure(self, error: GatewayError) -> None:
        self._forget()
        self.response_complete = True
        if self.started:
            # A torso must not pass for a whole answer.
            self._protocol.part()
            return
        again = self._line.idempotent and self._connection.served > 1
        stale = isinstance(error, ClosedEarly) and error.untouched and again
        # It may have been closing just as we wrote: the ASGI path starts over. Anything else it answers as its own.
        app = None if stale else self._lane.failing(error, self._admission.rule.label, self._began)
        self._protocol.hand_over(self, app, again=stale)

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

    def _write(self, chunk: bytes) -> None:
        """A piece of the body."""
        self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def _written(self, status: int, head: ResponseHead) -> bytes:
        """The head as the client gets it."""
        default_headers = self._protocol.server_state.default_headers
        lines = [STATUS_LINE[status]]
        lines += [b"%b: %b\r\n" % header for header in default_headers]
        dated = framed = False
        for name, value in head.headers:
            if name[:3] in SUSPECT and self._lane.gateway.hides(name, value):
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

    async def _cut(self, code: int) -> None:
        if self.started:
            self._protocol.transport.abort()
        else:
            # It was admitted, and a connection that closes without a word tells its sender nothing. As on the ASGI path
            # the answer may still come; if it goes on and on, the next look ends it.
            self._open = None

    def _forget(self) -> None:
        if self._open is not None:
            self._lane.gateway.sockets.remove(self._open)
            self._open = None
