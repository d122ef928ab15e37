"""The plain case below ASGI: a request without a body, a known session, a fresh grant, an idle upstream connection.

It asks the same desk, strips and signs with the same `Passing`, writes the head with the same `RequestWriter` and uses
the same pool as the ASGI path; what it saves is the event loop: no task, no ASGI messages, no futures. The lines of a
request are remembered (`plain_requests`), and what was decided for its session stands for a while (`standing`).
Whatever is not plain (or goes wrong before a byte of the answer) is handed to the ASGI path, which decides again from
the start. `tests/fast_lane/` holds both paths side by side, byte by byte.

`docs/performance.md` has what it gains; `akoya-gateway run --no-fast-lane` turns it off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from akoya_gateway.access.path_normalization import judge
from akoya_gateway.access.request import Ask, Headers, names_a_method_in
from akoya_gateway.admission.decision_cache import Standing, Standings
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.forward_auth import FastQuestions, Reply, is_one_head
from akoya_gateway.fast_lane.lane_exchange import Passage
from akoya_gateway.fast_lane.request_cache import Line, PlainRequests, Sender, head
from akoya_gateway.gateway.date_header import Dated, Dates
from akoya_gateway.gateway.forward_auth import is_forward_auth
from akoya_gateway.gateway.lifespan import App, Receive, Scope, Send
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.runtime import Engine
from akoya_gateway.gateway.upstream_router import Proxies
from akoya_gateway.signing.header_values import lines as as_lines
from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.http.forwarded_headers import Forwarding
from akoya_gateway.upstream.http.request_head import IDEMPOTENT, Body, RequestWriter

if TYPE_CHECKING:
    from akoya_gateway.fast_lane.uvicorn_protocol import FastHttpProtocol


class FastLane:
    """Decides whether a request is plain. `proxies` gives the reverse proxies in force, None where the gateway only
    decides for others; `clock` is the gateway's."""

    def __init__(
        self, gateway: Gateway, proxies: Callable[[], Proxies | None], dates: Dates, clock: Clock = time.time
    ) -> None:
        self.gateway = gateway
        self.dates = dates
        self._clock = clock
        self._proxies_in_force = proxies
        self._plain: PlainRequests | None = None
        self._questions = FastQuestions(dates)
        self._engine: Engine | None = None
        self._standings: Standings | None = None
        self._proxies: Proxies | None = None
        self._writer = RequestWriter(Forwarding(), b"")

    def find(self, data: bytes, peer: str | None) -> tuple[Line, Sender] | None:
        """A plain request, by its bytes; see `read` for one that has been parsed."""
        if self.gateway.running is not self._engine or self._proxies_in_force() is not self._proxies:
            self._renew()
        return None if self._plain is None else self._plain.read(data, peer)

    def find_scope(self, scope: Scope) -> tuple[Line, Sender] | None:
        """A plain request that another server has read (ASGI's `http` scope)."""
        if self.gateway.running is not self._engine or self._proxies_in_force() is not self._proxies:
            self._renew()
        if self._plain is None or scope["http_version"] != "1.1" or scope.get("root_path"):
            return None
        peer, told = peer_of(scope.get("client"))
        if told:
            return None
        try:
            return self._plain.read_scope(scope, peer)
        except TypeError:
            # ASGI lets a server give lists for pairs.
            return None

    def read(
        self, method: str, url: bytes, headers: Headers, peer: str | None, scheme: str, data: bytes | None
    ) -> tuple[Line, Sender] | None:
        """Judge a request as far as it does not depend on who asks; None: it is not for the lane. `data`: its bytes,
        where they came in one piece."""
        if self.gateway.running is not self._engine or self._proxies_in_force() is not self._proxies:
            self._renew()
        try:
            line = self._line(method, url)
            if line is None and data is not None:
                self._keep_question(method, url, headers, peer, data)
            sender = None if line is None else self._sender(line, headers, peer, scheme)
        except GatewayError:
            return None
        if line is None or sender is None:
            return None
        return line, sender

    def reply(self, data: bytes, peer: str | None) -> Reply | None:
        """The answer to a question of another proxy's that was asked before in the very same bytes; call `find` first.
        None: the ASGI path answers."""
        try:
            return None if self._engine is None else self._questions.reply(self._engine, data, peer, self._clock())
        except GatewayError:
            return None

    def depart(self, line: Line, sender: Sender, protocol: FastHttpProtocol) -> Passage | None:
        """None: not plain, or not now. Nothing has happened then, and the ASGI path answers, refusals included."""
        admitted = self.admit(line, sender)
        engine = self._engine
        if admitted is None or engine is None:
            return None
        connection = line.pool.take()
        if connection is None:
            return None
        admission, ours = admitted
        passage = Passage(protocol, self, engine, line, sender, admission, connection)
        connection.start(head(line, sender, ours), passage, head_only=line.head_only)
        return passage

    def admit(self, line: Line, sender: Sender) -> tuple[Standing | Admitted, bytes] | None:
        """Whether it may go on, and our lines for its head."""
        engine, standings = self._engine, self._standings
        if engine is None or standings is None:
            return None
        try:
            if not standings.serve:
                admission = engine.desk.admit_now(self.ask(line, sender), line.path)
                return None if admission is None else (admission, as_lines(admission.headers))
            if line.public is not None:
                return line.public, b""
            now = self._clock()
            standing = standings.of(sender.session, line.match, now)
            if standing is None:
                return None
            return standing, standing.prepared.lines(line.verb, sender.authority, line.raw_path, line.query, now)
        except GatewayError:
            return None

    def ask(self, line: Line, sender: Sender) -> Ask:
        return self.gateway.ask(line.method, line.raw_path, line.query, sender.headers, sender.peer)

    def failing(self, error: GatewayError, rule: str, began: float) -> App:
        """An app that answers with what went wrong, as the ASGI path would have; see `Gateway.answered`."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.gateway.answer_error(error, scope, send, rule, began)

        return Dated(app, self.dates)

    def _renew(self) -> None:
        """Another configuration: what was judged under the last one is worth nothing."""
        self._engine = self.gateway.running
        self._proxies = self._proxies_in_force()
        self._standings = None if self._engine is None else self._engine.desk.standings
        if self._engine is not None:
            # Requests of HTTP/1.1 alone come here, which all have a host.
            config = self._engine.config
            forwarding = Forwarding(config.trusted_proxies, config.public_url)
            self._writer = RequestWriter(forwarding, b"", self._engine.passing.client_headers)
        self._plain = self._plain_requests()
        self._questions.clear()

    def _plain_requests(self) -> PlainRequests | None:
        engine = self._engine
        if engine is None or self._proxies is None:
            return None
        return PlainRequests(self._line, self._writer, engine.cookies, "http", engine.config.limits.header_bytes)

    def _keep_question(self, method: str, url: bytes, headers: Headers, peer: str | None, data: bytes) -> None:
        engine = self._engine
        if engine is None or not self.gateway.decides_for_others or url[:1] != b"/":
            return
        raw_path, _, query = url.partition(b"?")
        if is_forward_auth(engine.config.prefix, judge(raw_path)) and is_one_head(
            data, method.encode("ascii"), url, len(headers)
        ):
            ask = partial(self.gateway.ask, method, raw_path, query, headers, peer)
            self._questions.keep(engine, peer, data, ask)

    def _line(self, method: str, url: bytes) -> Line | None:
        engine, proxies = self._engine, self._proxies
        if engine is None or proxies is None or url[:1] != b"/" or b"#" in url:
            return None
        raw_path, _, query = url.partition(b"?")
        path = judge(raw_path)
        match = None if engine.routes.own(path) else engine.desk.match(method, path)
        if match is None or match.rule.upstream is None:
            return None
        if names_a_method_in(query) and engine.desk.minds_method(path):
            return None
        proxy = proxies[match.rule.upstream.name]
        verb = self._writer.judge_line(method, url)
        public = not engine.desk.needs_owner(match)
        return Line(verb, raw_path, query, path, match, proxy, public=public, idempotent=verb in IDEMPOTENT)

    def _sender(self, line: Line, headers: Headers, peer: str | None, scheme: str) -> Sender | None:
        assert self._engine is not None
        fields = self._engine.passing.read(headers)
        authority = fields.authorities[line.secure]
        section = self._writer.section(fields.onward, peer=peer, scheme=scheme)
        if section.body is not Body.NONE or not authority or fields.override:
            return None
        return Sender(headers, peer, fields.session, authority, section.fields, section.forwarded + b"\r\n")
