"""Tracks the health of providers: whether and when requests may be sent, and what an operator has to fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client
from akoya_gateway.grants.circuit_breaker import CircuitBreaker
from akoya_gateway.grants.confirmed_clock import ConfirmedClock
from akoya_gateway.grants.observer import GrantObserver
from akoya_gateway.grants.request_pacer import RequestPacer
from akoya_gateway.grants.trust import TrustTracker
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    RevocationOutcome,
    TokenOutcome,
    TokensIssued,
)

_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client", "status_401"})
"""Errors that can only be about the client (RFC 6749 section 5.2)."""

Outcome = TokenOutcome | RevocationOutcome

DOWN_AFTER = 5
"""Number of consecutive failed requests after which an environment is considered down."""


@dataclass(frozen=True, slots=True)
class RegistrationProblem:
    """A client registration that the provider rejects, for /readyz and the log. `error` is the validated error code."""

    client: str
    environment: str
    error: str
    since: float
    count: int = 1


class ProviderHealth:
    """Circuit breakers and pacing for all providers.

    There is one circuit breaker per environment (the provider is down) and one per client (its registration is
    rejected). `trust` handles untrusted responses. A `RequestPacer` per environment handles rate limiting (429).
    """

    def __init__(self, clock: Clock, random: Callable[[], float], observer: GrantObserver) -> None:
        self._clock = clock
        self._random = random
        self._observer = observer
        self._environments: dict[str, CircuitBreaker] = {}
        self._clients: dict[str, CircuitBreaker] = {}
        self._pacers: dict[str, RequestPacer] = {}
        self._registration_problems: dict[str, RegistrationProblem] = {}
        self._rejected: dict[str, str] = {}
        """The first grant of each client that was rejected since the client's last success."""
        self.trust = TrustTracker(clock, random)
        self.confirmed_clock = ConfirmedClock(clock)

    @property
    def registration_problems(self) -> tuple[RegistrationProblem, ...]:
        """Client registrations that the provider rejects."""
        return tuple(self._registration_problems.values())

    @property
    def unavailable_environments(self) -> tuple[str, ...]:
        """Environments whose circuit breaker is open."""
        return tuple(name for name, breaker in self._environments.items() if breaker.is_open)

    def wait(self, client: Client, connector: str | None = None) -> float:
        """Return the seconds until a request of this client may be sent; 0.0 means now.

        For a refresh, `connector` is the connector of the grant.
        """
        untrusted = 0.0 if connector is None else self.trust.wait(client.environment.name, connector)
        return max(self._environment(client).wait(), self._client(client).wait(), untrusted)

    def wait_for_turn(self, client: Client) -> float:
        """Reserve a turn for the caller, and return the seconds until it; 0.0 means now. Does not wait itself."""
        return self._pacer(client).reserve(client.environment.rate)

    def enter(self, client: Client, connector: str | None = None) -> bool:
        """Return True if the caller may send a request now.

        The caller must then call `record_outcome`, or `leave` if it sends no request. If it passed a `connector` (as in
        `wait`), it must call `trust.record_outcome` as well.
        """
        if self.wait(client, connector) > 0.0:
            return False
        if connector is not None:
            self.trust.enter(client.environment.name, connector)
        return self._environment(client).enter() and self._client(client).enter()

    def leave(self, client: Client, connector: str | None = None) -> None:
        """Undo `enter` without having sent a request."""
        self._environment(client).leave()
        self._client(client).leave()
        if connector is not None:
            self.trust.leave(client.environment.name, connector)

    def record_outcome(
        self, client: Client, outcome: Outcome, grant_id: str | None = None
    ) -> RegistrationProblem | None:
        """Record the outcome of a request. Return the registration problem if this outcome is the first sign of it.

        `grant_id` is that of the grant whose refresh the outcome belongs to.
        """
        environment, registration = self._environment(client), self._client(client)
        if isinstance(outcome, TokensIssued):
            self.confirmed_clock.confirm()
        if isinstance(outcome, ProviderDown) and outcome.busy:
            self._pacer(client).on_rate_limited()
            environment.succeeded()
            registration.leave()
            return None
        if isinstance(outcome, ProviderDown | OutcomeUnknown):
            if _blames_token(outcome):
                environment.leave()
            else:
                environment.failed((outcome.retry_after or 0.0) if isinstance(outcome, ProviderDown) else 0.0)
            # The outcome says nothing about the registration, so let another request probe it.
            registration.leave()
            return None
        environment.succeeded()
        if not isinstance(outcome, ClientRejected):
            registration.succeeded()
            self._registration_problems.pop(client.name, None)
            self._rejected.pop(client.name, None)
            return None
        if self._is_about_client(client, outcome, grant_id):
            registration.failed()
        else:
            registration.leave()
        return self._record_registration_problem(client, outcome)

    def _is_about_client(self, client: Client, outcome: ClientRejected, grant_id: str | None) -> bool:
        """Return False if the rejection may be about this grant only, so that it must not hold back the others.

        A provider may respond with 403 for one bank. Without a success in between, a second grant shows that the client
        or the endpoint is the cause.
        """
        if grant_id is None or outcome.error in _CLIENT_ERRORS:
            return True
        rejected = self._rejected.setdefault(client.name, grant_id)
        return rejected != grant_id

    def _record_registration_problem(self, client: Client, outcome: ClientRejected) -> RegistrationProblem | None:
        problem = self._registration_problems.get(client.name)
        if problem is not None:
            self._registration_problems[client.name] = replace(problem, error=outcome.error, count=problem.count + 1)
            return None
        problem = RegistrationProblem(client.name, client.environment.name, outcome.error, self._clock())
        self._registration_problems[client.name] = problem
        return problem

    def _environment(self, client: Client) -> CircuitBreaker:
        name = client.environment.name
        breaker = self._environments.get(name)
        if breaker is None:
            breaker = self._environments[name] = CircuitBreaker(
                self._clock,
                self._random,
                threshold=DOWN_AFTER,
                on_change=lambda is_open: self._observer.breaker(name, is_open),
            )
        return breaker

    def _pacer(self, client: Client) -> RequestPacer:
        return self._pacers.setdefault(client.environment.name, RequestPacer(self._clock))

    def _client(self, client: Client) -> CircuitBreaker:
        breaker = self._clients.get(client.name)
        if breaker is None:
            breaker = self._clients[client.name] = CircuitBreaker(self._clock, self._random, threshold=1)
        return breaker


def _blames_token(outcome: ProviderDown | OutcomeUnknown) -> bool:
    """Return True for a failure that the provider reports as one of the token (`error_descriptions.means_retry`).

    It may concern this token only, for example that of a locked account, so it must not hold back the other grants.
    """
    reply = outcome.reply
    return reply is not None and reply.status == 400 and reply.error in ("invalid_grant", "invalid_request")
