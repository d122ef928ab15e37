"""`Gateway`: ASGI middleware around any app, and the way in for every request of the sidecar.

Its own routes are answered here; everything else is judged by `admission.gate` and goes on with our headers, or does
not go on at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from pathlib import Path

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.admission.denial_responses import Refusals
from akoya_gateway.admission.gate import Admitted, Denied, judged_path
from akoya_gateway.clock import Clock
from akoya_gateway.config import load_config
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.request import Visit
from akoya_gateway.endpoints.router import MethodNotAllowed
from akoya_gateway.errors import GatewayError, OperatorError
from akoya_gateway.gateway.connection_monitor import OpenSocket, Sockets
from akoya_gateway.gateway.forward_auth import ForwardAuthOff, forward_auth, is_forward_auth
from akoya_gateway.gateway.hidden import hides
from akoya_gateway.gateway.lifespan import App, Message, Receive, Scope, Send, lifespan
from akoya_gateway.gateway.request_body import digested, limited, whole
from akoya_gateway.gateway.response_filter import Reply
from akoya_gateway.gateway.response_observer import Asked, Responses
from akoya_gateway.gateway.runtime import NOBODY, Engine, Watchers
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.grants.grant import Grant
from akoya_gateway.log import logger
from akoya_gateway.observability.request_id import RequestIds
from akoya_gateway.responses.response import Answer
from akoya_gateway.trusted_proxies import peer_of

log = logger("akoya_gateway.gateway")


class Stopped(OperatorError):
    """What comes after the end opens nothing any more: nobody would close it, and its answers would be cut off."""

    code = "stopped"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("The gateway has been stopped.")


class Gateway:
    """Wrap an ASGI app: `app = Gateway(app, "gateway.yaml")`.

    `config`: a path, or what `load_config` returned. The store is opened at lifespan startup, or with the first
    request under a server without lifespan. Raises `config.ConfigurationError` for a file with faults.
    """

    def __init__(
        self,
        app: App,
        config: Config | str | Path,
        *,
        watchers: Watchers = NOBODY,
        clock: Clock = time.time,
        forward_auth: bool = False,
    ) -> None:
        """`forward_auth`: whether other proxies may ask for decisions, where the configuration leaves it open."""
        self._forward_auth = forward_auth
        self._app = app
        self._config = config if isinstance(config, Config) else load_config(Path(config))
        self._watchers = watchers
        self._clock = clock
        self._engine: Engine | None = None
        self._starting: asyncio.Task[Engine] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        """Set from the beginning of an end until the next start."""
        self._ids = RequestIds(self._config.trusted_proxies)
        self._refusals = Refusals(self._config)
        self.hides = hides(self._config.sessions.cookie)
        """Which headers of the app's responses stay here."""
        self._said: dict[str, float] = {}
        self.sockets = Sockets(self._still_admitted)

    @property
    def engine(self) -> Engine:
        """The engine in force. Raises `RuntimeError` before startup."""
        if self._engine is None:
            raise RuntimeError("the gateway has not been started")
        return self._engine

    async def startup(self) -> Engine:
        """Also once more, after `shutdown`. Raises what `Engine.open` raises."""
        if self._stopping.is_set():
            self._stopping = asyncio.Event()
        return await self._ready()

    async def _ready(self) -> Engine:
        """The engine in force, opened now if need be: under a server without lifespan the first request is the start.

        Raises what `Engine.open` raises, and `Stopped`."""
        if self._engine is not None:
            return self._engine
        if self._stopping.is_set():
            raise Stopped
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._open())
        # Shielded: the first client may go away while others wait for the same start.
        return await asyncio.shield(self._starting)

    async def _open(self) -> Engine:
        try:
            engine = await Engine.open(self._config, self._watchers, self._clock)
            self._install(engine)
            return engine
        finally:
            self._starting = None

    async def shutdown(self) -> None:
        self._stopping.set()
        await self.sockets.stop()
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if self._retiring:
            await asyncio.gather(*self._retiring, return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    async def reload(self, config: Config) -> None:
        """Go on with another configuration. Requests under way end with the engine they began with.

        Raises what `Engine.open` raises, and `Stopped`; then the old engine stays in force.
        """
        old = await self._ready()
        same_store = config.sessions.store == old.config.sessions.store
        engine = await Engine.open(config, self._watchers, self._clock, old.store if same_store else None)
        if self._stopping.is_set():
            # The end has come meanwhile, and has not seen this one.
            await engine.close(keep_store=same_store)
            raise Stopped
        self._config = config
        self.hides = hides(config.sessions.cookie)
        self._ids = RequestIds(config.trusted_proxies)
        self._install(engine)
        task = asyncio.create_task(self._retire(old, same_store, tuple(self._retiring)))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, engine: Engine, keep_store: bool, before: tuple[asyncio.Task[None], ...]) -> None:
        """`before`: engines that are on their way out already and may write to the store that this one closes."""
        await engine.keeper.rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_AFTER):
                await self._stopping.wait()
        if before:
            await asyncio.wait(before)
        await engine.close(keep_store=keep_store)

    def _install(self, engine: Engine) -> None:
        if self._engine is not engine:
            engine.keeper.on_gone(self._gone)
            self._engine = engine
            self._refusals = engine.refusals

    def _gone(self, grant: Grant) -> None:
        self.sockets.look_now()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(self._app, scope, receive, send, self.startup, self.shutdown)
        else:
            raise ValueError(f"unknown ASGI scope {scope['type']!r}")

    @property
    def decides_for_others(self) -> bool:
        """Whether forward-auth is on."""
        chosen = self._config.forward_auth
        return self._forward_auth if chosen is None else chosen

    @property
    def running(self) -> Engine | None:
        """The engine in force, None before startup."""
        return self._engine

    def ask(
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        headers: Headers,
        peer: str | None,
        websocket: bool = False,
        told: bool = False,
    ) -> Ask:
        """A request as the desk reads it."""
        given = None
        for name, value in headers:
            if name == b"x-request-id":
                given = value
                break
        request_id = self._ids.of(peer, given, told=told)
        return Ask(method, raw_path, query, headers, peer, request_id, websocket, told=told)

    def ask_of(self, scope: Scope) -> Ask:
        peer, told = peer_of(scope.get("client"))
        return self.ask(
            scope.get("method", "GET"),
            scope.get("raw_path") or _raw_path(scope["path"]),
            scope["query_string"],
            # As they are now: uvicorn adds a request's trailers to them, while it is being judged or when it has been.
            [*scope["headers"]],
            peer,
            scope["type"] == "websocket",
            told,
        )

    def began(self) -> float:
        """When a request began, for `answered`; no clock is read where nobody is told."""
        return self._clock() if self._watchers.requests is not None else 0.0

    def answered(self, asked: Asked, status: int, rule: str, began: float) -> None:
        """The answer to a request that was passed on has begun. `rule`: the label of the access rule."""
        watcher = self._watchers.requests
        if watcher is not None:
            watcher.answered(asked, status, rule, "passed", self._clock() - began)

    async def answer_error(self, error: GatewayError, scope: Scope, send: Send, rule: str, began: float) -> None:
        """What went wrong with a request that was passed on, as its sender is to be told; see `answered`."""
        await self._answer_error(error, self.ask_of(scope), send, began, rule)

    def _http(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        began = self.began()
        engine = self._engine
        if engine is not None:
            try:
                plain = engine.plain.admit(scope)
            except GatewayError as error:
                return self._answer_error(error, self.ask_of(scope), send, began)
            if plain is not None:
                admission, headers, ours = plain
                reply = Reply(self, scope, send, admission, began)
                return self._go_on(engine, reply, headers, ours, scope, receive, send)
        return self._decide(scope, receive, send, began)

    async def _decide(self, scope: Scope, receive: Receive, send: Send, began: float) -> None:
        ask = self.ask_of(scope)
        responses = self._responses(ask, send, began)
        reply: Reply | None = None
        try:
            engine = self._engine or await self._ready()
            if engine.digests:
                ask, receive = await digested(ask, receive, engine.digests)
            path = self._path(engine, ask, scope)
            outcome: Admitted | Denied | None = None
            if not engine.routes.own(path):
                outcome = engine.desk.admit_now(ask, path) or await engine.desk.admit(ask, path)
                responses.decided(outcome)
            if isinstance(outcome, Admitted):
                reply = Reply(self, scope, send, outcome, began, ask)
                headers = engine.passing.onward(ask, outcome.headers, outcome.fields)
                receive = limited(receive, ask, engine.body_bytes) if engine.body_bytes else receive
                if not scope.get("raw_path"):
                    scope = {**scope, "raw_path": ask.raw_path}
                await self._go_on(engine, reply, headers, len(outcome.headers), scope, receive, send)
                return
            answer = outcome.answer if outcome is not None else await self._own(engine, ask, path, receive, responses)
        except GatewayError as error:
            if reply is not None and reply.started:
                # `_go_on` has let it through: the answer that has begun must not get a second head.
                raise
            responses.failed(error)
            answer = self._error(error, ask)
        await answer.send(responses.own, head=ask.method == "HEAD")

    async def _go_on(
        self, engine: Engine, reply: Reply, headers: Headers, ours: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """To the app behind us. `ours`: how many of the headers, the last ones, are."""
        onward = dict(scope)
        onward["headers"] = headers
        onward["akoya.ours"] = ours
        admission = reply.admission
        onward["akoya.upstream"] = admission.rule.upstream
        if admission.owner is not None:
            onward["akoya.ending"] = reply
        try:
            await self._app(onward, receive, reply)
        except GatewayError as error:
            if reply.started:
                # Too late for an answer: the server closes the connection, and nobody takes the torso for a whole.
                raise
            await self._answer_error(error, reply.ask, send, reply.began, admission.rule.label)
        finally:
            reply.over()
        if reply.token_rejected and admission.grant is not None:
            await engine.keeper.report_stale(admission.grant)

    async def _answer_error(
        self, error: GatewayError, ask: Ask, send: Send, began: float, rule: str | None = None
    ) -> None:
        """`rule`: the label of the one that let the request in."""
        responses = self._responses(ask, send, began)
        if rule is not None:
            responses.passed(rule)
        responses.failed(error)
        await self._error(error, ask).send(responses.own, head=ask.method == "HEAD")

    async def _own(self, engine: Engine, ask: Ask, path: str, receive: Receive, responses: Responses) -> Answer:
        """The answer of a route of ours."""
        if is_forward_auth(engine.config.prefix, path):
            if not self.decides_for_others:
                raise ForwardAuthOff
            return await forward_auth(engine, ask, responses)
        visitor = await engine.visitors.of(ask)
        return await engine.routes(Visit(ask, path, visitor, lambda limit: whole(receive, limit)))

    def _responses(self, ask: Ask, send: Send, began: float) -> Responses:
        return Responses(ask, send, self._watchers.requests, self._clock, began)

    def _path(self, engine: Engine, ask: Ask, scope: Scope) -> str:
        """The path to decide about. Raises `UserError` where the app behind us would serve another."""
        path = judged_path(ask)
        if path != scope["path"]:
            raise PathRefused("The path can be read in two ways.")
        engine.mount.require(scope.get("root_path") or "", path)
        return path

    def _error(self, error: GatewayError, ask: Ask) -> Answer:
        if isinstance(error, OperatorError):
            self._say(error, ask)
        answer = self._refusals.error(error, ask)
        if isinstance(error, MethodNotAllowed):
            answer = answer.with_headers((b"allow", error.allow.encode()))
        return answer

    def _say(self, error: OperatorError, ask: Ask) -> None:
        """Once a second for each kind: it is the operator's to mend, and every request meets it."""
        now = self._clock()
        if abs(now - self._said.get(error.code, 0.0)) >= 1.0:
            self._said[error.code] = now
            log.error("a request cannot be served", problem=error.code, reason=error.detail, request_id=ask.request_id)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = self.ask_of(scope)
        began = self.began()
        try:
            engine = self._engine or await self._ready()
            path = self._path(engine, ask, scope)
            require_own_origin(ask, engine.config.public_url)
            if engine.routes.own(path):
                raise PathRefused("There is no WebSocket here.", status=404, code="not-found")
            admission = engine.desk.admit_now(ask, path) or await engine.desk.admit(ask, path)
        except GatewayError as error:
            await _refuse(scope, receive, send, self._error(error, ask))
            return
        if isinstance(admission, Denied):
            await _refuse(scope, receive, send, admission.answer)
            return
        reply = Reply(self, scope, send, admission, began, ask)
        await self._relay(engine, reply, path, admission, scope, receive, send)

    async def _relay(
        self,
        engine: Engine,
        reply: Reply,
        path: str,
        admitted: Admitted,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        onward = dict(scope)
        onward["raw_path"] = reply.ask.raw_path
        onward["headers"] = engine.passing.onward(reply.ask, admitted.headers, admitted.fields)
        onward["akoya.upstream"] = admitted.rule.upstream

        async def close(code: int) -> None:
            await send({"type": "websocket.close", "code": code, "reason": "the bank connection has ended"})

        socket = OpenSocket(reply.ask, path, close)
        if admitted.owner is not None:
            self.sockets.add(socket)
        try:
            await self._app(onward, receive, reply)
        except GatewayError as error:
            # The upstream cannot be reached, or the client's request cannot be passed on.
            if reply.started:
                raise
            await _deny(scope, send, self._error(error, reply.ask))
        finally:
            self.sockets.remove(socket)

    async def _still_admitted(self, ask: Ask, path: str) -> bool:
        return isinstance(await self.engine.desk.admit(ask, path), Admitted)


RETIRE_AFTER = 30.0
"""Seconds that an engine replaced by a reload stays open for the requests that began with it."""


def _raw_path(path: str) -> bytes:
    """For servers that give no `raw_path` (it is optional in ASGI): the path, escaped as a client would have."""
    from urllib.parse import quote  # noqa: PLC0415 - only such servers need it

    return quote(path, safe="/-._~!$&'()*+,=:@").encode("ascii")


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    """Before the handshake is accepted: an HTTP answer where the server can send one, a plain 403 elsewhere."""
    message: Message = await receive()
    if message["type"] == "websocket.connect":
        await _deny(scope, send, answer)


async def _deny(scope: Scope, send: Send, answer: Answer) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": answer.all_headers()})
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008})
