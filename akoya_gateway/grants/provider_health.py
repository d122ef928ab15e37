"""How the providers are doing: whether to ask them and when, and what an operator must look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client
from akoya_gateway.grants.circuit_breaker import Breaker
from akoya_gateway.grants.observer import Observer
from akoya_gateway.grants.request_pacer import Turns
from akoya_gateway.grants.trust import Trust
from akoya_gateway.oauth.outcomes import (
    OperatorFault,
    OutcomeUnknown,
    ProviderDown,
    RevocationAnswer,
    TokenAnswer,
)

Answer = TokenAnswer | RevocationAnswer

DOWN_AFTER = 5
"""Requests in a row that came to nothing, after which an environment is taken to be down."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The provider refuses a client registration. For /readyz and the log; `error` is the provider's judged word."""

    client: str
    environment: str
    error: str
    since: float
    count: int = 1


class Health:
    """One breaker an environment (it is down) and one a client (its registration is refused); `trust`, for responses
    that cannot be trusted; and a queue before each environment, for when it is well but asked too often."""

    def __init__(self, clock: Clock, random: Callable[[], float], observer: Observer) -> None:
        self._clock = clock
        self._random = random
        self._observer = observer
        self._environments: dict[str, Breaker] = {}
        self._clients: dict[str, Breaker] = {}
        self._turns: dict[str, Turns] = {}
        self._faults: dict[str, Fault] = {}
        self.trust = Trust(clock, random)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults.values())

    @property
    def down(self) -> tuple[str, ...]:
        """Environments whose breaker is open."""
        return tuple(name for name, breaker in self._environments.items() if breaker.is_open)

    def wait(self, client: Client, connector: str | None = None) -> float:
        """Seconds until this client's provider may be asked, for a refresh of a grant of `connector`; 0.0: now."""
        untrusted = 0.0 if connector is None else self.trust.wait(client.environment.name, connector)
        return max(self._environment(client).wait(), self._client(client).wait(), untrusted)

    def turn(self, client: Client) -> float:
        """Seconds until it is the caller's turn, which is kept for them; 0.0: now."""
        return self._queue(client).take(client.environment.rate)

    def enter(self, client: Client, connector: str | None = None) -> bool:
        """True: ask now, and tell `answered` what came of it. `connector`: as in `wait`; tell `trust.answered`, too."""
        if self.wait(client, connector) > 0.0:
            return False
        if connector is not None:
            self.trust.enter(client.environment.name, connector)
        return self._environment(client).enter() and self._client(client).enter()

    def leave(self, client: Client, connector: str | None = None) -> None:
        """Who entered does not ask after all."""
        self._environment(client).leave()
        self._client(client).leave()
        if connector is not None:
            self.trust.leave(client.environment.name, connector)

    def answered(self, client: Client, answer: Answer) -> Fault | None:
        """Returns the fault if the answer is the first sign of it."""
        environment, registration = self._environment(client), self._client(client)
        if isinstance(answer, ProviderDown) and answer.busy:
            self._queue(client).complained()
            environment.succeeded()
            registration.leave()
            return None
        if isinstance(answer, ProviderDown | OutcomeUnknown):
            environment.failed((answer.retry_after or 0.0) if isinstance(answer, ProviderDown) else 0.0)
            return None
        environment.succeeded()
        if not isinstance(answer, OperatorFault):
            registration.succeeded()
            self._faults.pop(client.name, None)
            return None
        registration.failed()
        return self._fault(client, answer)

    def _fault(self, client: Client, answer: OperatorFault) -> Fault | None:
        known = self._faults.get(client.name)
        if known is not None:
            self._faults[client.name] = replace(known, error=answer.error, count=known.count + 1)
            return None
        fault = Fault(client.name, client.environment.name, answer.error, self._clock())
        self._faults[client.name] = fault
        return fault

    def _environment(self, client: Client) -> Breaker:
        name = client.environment.name
        breaker = self._environments.get(name)
        if breaker is None:
            breaker = self._environments[name] = Breaker(
                self._clock,
                self._random,
                threshold=DOWN_AFTER,
                changed=lambda is_open: self._observer.breaker(name, is_open),
            )
        return breaker

    def _queue(self, client: Client) -> Turns:
        return self._turns.setdefault(client.environment.name, Turns(self._clock))

    def _client(self, client: Client) -> Breaker:
        breaker = self._clients.get(client.name)
        if breaker is None:
            breaker = self._clients[client.name] = Breaker(self._clock, self._random, threshold=1)
        return breaker
