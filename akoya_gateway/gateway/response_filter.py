"""The app's answer on its way back to the client: our own names taken out, ended from outside where it is a stream."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.admission.decision_cache import Standing
from akoya_gateway.admission.gate import Admitted
from akoya_gateway.gateway.connection_monitor import OpenSocket, Sockets
from akoya_gateway.gateway.hidden import SUSPECT, Hides
from akoya_gateway.gateway.lifespan import Message, Scope, Send
from akoya_gateway.gateway.response_observer import Asked
from akoya_gateway.upstream.errors import Ended
from akoya_gateway.upstream.stream_cancellation import Ending

TOKEN_REJECTED = b"akoya-token-rejected"
"""A response header by which the app says that Akoya did not take the token (401, code 602): it is refreshed."""

_EVENT_STREAM = b"text/event-stream"
_BEGINNINGS = ("http.response.start", "websocket.accept")
_MORE_HEADERS = ("http.response.trailers", "websocket.http.response.start")


def is_event_stream(headers: Headers) -> bool:
    """Whether the response is one that goes on and on (WHATWG HTML, server-sent events)."""
    for name, value in headers:
        if name == b"content-type":
            return value[:17].lower() == _EVENT_STREAM
    return False


class House(Protocol):
    """Where the request was let in: the gateway."""

    sockets: Sockets
    hides: Hides

    def ask_of(self, scope: Scope) -> Ask: ...

    def answered(self, asked: Asked, status: int, rule: str, began: float) -> None: ...


class Reply(Ending):
    """ASGI's `send` for the app that a request was passed on to. An event stream outlives the decision that let it in,
    as a WebSocket does: it is looked after the same way, and ended here, as an `Ending`."""

    __slots__ = ("_ask", "_house", "_open", "_scope", "_send", "admission", "began", "started", "token_rejected")

    def __init__(
        self,
        house: House,
        scope: Scope,
        send: Send,
        admission: Admitted | Standing,
        began: float,
        ask: Ask | None = None,
    ) -> None:
        """`ask`: the request that `scope` is, if somebody has read it. `began`: when it did, for `House.answered`."""
        self.ended = None
        self._listeners = []
        self._house = house
        self._scope = scope
        self._send = send
        self.began = began
        self._ask = ask
        self._open: OpenSocket | None = None
        self.admission = admission
        self.started = False
        self.token_rejected = False

    @property
    def ask(self) -> Ask:
        if self._ask is None:
            self._ask = self._house.ask_of(self._scope)
        return self._ask

    def __call__(self, message: Message) -> Awaitable[None]:
        """Not a coroutine itself: one less to be stepped through for every message."""
        kind = message["type"]
        if kind in _BEGINNINGS:
            message = self._begin(kind, message)
        elif self.ended is not None:
            raise Ended("the bank connection of this stream has ended")
        elif kind in _MORE_HEADERS:
            message = self._cleaned(message)
        return self._send(message)

    def _begin(self, kind: str, message: Message) -> Message:
        """The message as the client is to get it. One look at each header, since every answer has some."""
        self.started = True
        self._house.answered(self, message.get("status", 101), self.admission.rule.label, self.began)
        stream = ours = False
        headers = message.get("headers", ())
        if type(headers) is not list:
            # Any iterable will do for ASGI, and some can be gone through once only.
            message = {**message, "headers": (headers := list(headers))}
        for name, value in headers:
            if name == b"content-type":
                stream |= value[:17].lower() == _EVENT_STREAM
            elif name[:3] in SUSPECT and self._house.hides(name, value):
                ours = True
        if stream and kind == "http.response.start" and self.admission.owner is not None:
            self._open = OpenSocket(self.ask, self._scope["path"], self._close)
            self._house.sockets.add(self._open)
        return self._cleaned(message) if ours else message

    def over(self) -> None:
        """The app is done."""
        if self._open is not None:
            self._house.sockets.remove(self._open)

    async def _close(self, code: int) -> None:
        self.end(code)

    def _cleaned(self, message: Message) -> Message:
        headers: Headers = list(message.get("headers", ()))
        self.token_rejected |= any(name.lower() == TOKEN_REJECTED for name, _ in headers)
        hides = self._house.hides
        return {**message, "headers": [pair for pair in headers if pair[0][:3] not in SUSPECT or not hides(*pair)]}
