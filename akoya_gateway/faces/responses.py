"""What goes back for one request: the app's answer with our own names taken out, or an answer of ours."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from akoya_gateway.access.ask import Ask, Headers
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.faces.admission import Admitted, Denied
from akoya_gateway.faces.lifespan import Message, Send
from akoya_gateway.faces.streams import Stream

TOKEN_REJECTED = b"akoya-token-rejected"
"""A response header by which the app says that Akoya did not take the token (401, code 602): it is refreshed."""


def is_event_stream(headers: Headers) -> bool:
    """Whether the response is one that goes on and on (WHATWG HTML, server-sent events)."""
    for name, value in headers:
        if name == b"content-type":
            return value[:17].lower() == b"text/event-stream"
    return False


class Asked(Protocol):
    """Whoever has the request: it may take work to say it, which is for nothing where nobody wants to know."""

    @property
    def ask(self) -> Ask: ...


class RequestWatcher(Protocol):
    """Told once of every request, when its answer begins. Must not raise."""

    def answered(self, asked: Asked, status: int, rule: str, outcome: str, seconds: float) -> None: ...


class Responses:
    """Wraps `send` for one request. `upstream` is for the app behind us, `own` for our answers."""

    __slots__ = (
        "_began",
        "_clock",
        "_outcome",
        "_rule",
        "_send",
        "_watcher",
        "ask",
        "started",
        "stream",
        "token_rejected",
    )

    def __init__(self, ask: Ask, send: Send, watcher: RequestWatcher | None, clock: Clock) -> None:
        self.ask = ask
        self._send = send
        self._watcher = watcher
        self._clock = clock
        self._began = clock() if watcher is not None else 0.0
        self._rule = "-"
        self._outcome = "own"
        self.started = False
        self.stream: Stream | None = None
        self.token_rejected = False

    def meant(self, original: Ask) -> None:
        """Forward-auth: the log is to name the request that was asked about."""
        self.ask = original

    def passed_on(self, rule: str, began: float) -> None:
        """By somebody else, under the rule of this label, at that time."""
        self._rule, self._began = rule, began

    def decided(self, outcome: Admitted | Denied) -> None:
        if isinstance(outcome, Admitted):
            self._rule, self._outcome = outcome.rule.label, "passed"
        else:
            self._rule, self._outcome = outcome.rule.label if outcome.rule else "-", outcome.why

    def failed(self, error: GatewayError) -> None:
        self._outcome = error.code

    def upstream(self, message: Message) -> Awaitable[None]:
        """Not a coroutine itself: one less to be stepped through for every message."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept"):
            message = self._cleaned(message)
            self._begin(message.get("status", 101))
            if self.stream is not None and is_event_stream(message.get("headers", [])):
                self.stream.opened()
        elif self.stream is not None and self.stream.ending.ended is not None:
            raise self.stream.error()
        return self._send(message)

    async def own(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message["status"])
        await self._send(message)

    def _begin(self, status: int) -> None:
        self.started = True
        if self._watcher is not None:
            self._watcher.answered(self, status, self._rule, self._outcome, self._clock() - self._began)

    def _cleaned(self, message: Message) -> Message:
        headers: Headers = message.get("headers", [])
        for name, _ in headers:
            if name[:6].lower() == b"akoya-":
                break
        else:
            return message
        self.token_rejected = any(name.lower() == TOKEN_REJECTED for name, _ in headers)
        # An app that echoes what it received must not hand a token to the browser.
        return {**message, "headers": [pair for pair in headers if pair[0][:6].lower() != b"akoya-"]}
