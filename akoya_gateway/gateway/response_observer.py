"""Answers of ours to one request, and who is told of them."""

from __future__ import annotations

from typing import Protocol

from akoya_gateway.access.request import Ask
from akoya_gateway.admission.gate import Admitted, Denied
from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.lifespan import Message, Send


class Asked(Protocol):
    """Whoever has the request: it may take work to say it, which is for nothing where nobody wants to know."""

    @property
    def ask(self) -> Ask: ...


class RequestWatcher(Protocol):
    """Told once of every request, when its answer begins. Must not raise."""

    def answered(self, asked: Asked, status: int, rule: str, outcome: str, seconds: float) -> None: ...


class Responses:
    """Wraps `send` for one request that is answered here."""

    __slots__ = ("_began", "_clock", "_outcome", "_rule", "_send", "_watcher", "ask")

    def __init__(self, ask: Ask, send: Send, watcher: RequestWatcher | None, clock: Clock, began: float) -> None:
        self.ask = ask
        self._send = send
        self._watcher = watcher
        self._clock = clock
        self._began = began
        self._rule = "-"
        self._outcome = "own"

    def meant(self, original: Ask) -> None:
        """Forward-auth: the log is to name the request that was asked about."""
        self.ask = original

    def decided(self, outcome: Admitted | Denied) -> None:
        if isinstance(outcome, Admitted):
            self.passed(outcome.rule.label)
        else:
            self._rule, self._outcome = outcome.rule.label if outcome.rule else "-", outcome.why

    def passed(self, rule: str) -> None:
        """Under the rule of this label."""
        self._rule, self._outcome = rule, "passed"

    def failed(self, error: GatewayError) -> None:
        self._outcome = error.code

    async def own(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._watcher is not None:
            self._watcher.answered(self, message["status"], self._rule, self._outcome, self._clock() - self._began)
        await self._send(message)
