"""Tracks the health of providers: whether and when requests may be sent, and what an operator has to fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client
from akoya_gateway.grants.circuit_breaker import CircuitBreaker
from akoya_gateway.grants.confirmed_clock import ConfirmedClock
from akoya_gateway.grants.observer import GrantObserver
from akoya_gateway.grants.request_pacer import RequestPacer
from akoya_gateway.grants.trust import TrustTracker
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DownReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    RevocationOutcome,
    TokenOutcome,
    TokensIssued,
    Untrusted,
    may_concern_one_grant,
)

_ABOUT_CODE = frozenset({"invalid_grant", "invalid_request"})
"""Errors of a code exchange that may be about the code, which the browser sends."""

MAX_CAUSES = 8
"""Maximum number of errors of one client that are logged until its next success."""

OUTAGE_CONNECTORS = 2
"""Number of failing connectors that make an outage of their environment."""

Outcome = TokenOutcome | RevocationOutcome

DOWN_AFTER = 5
"""Number of consecutive failed requests after which an environment, or a connector, is considered down."""


@dataclass(frozen=True, slots=True)
class RegistrationProblem:
    """A client registration that the provider rejects, for /readyz and the log. `error` is the validated error code."""

    client: str
    environment: str
    error: str
    since: float
    reported: frozenset[str] = frozenset()
    """The errors so far, at most `MAX_CAUSES`."""


class ProviderHealth:
    """Circuit breakers and pacing for all providers.

    There is one circuit breaker per environment (the provider is down), one per connector (the provider fails for one
    bank) and one per client (its registration is rejected). `trust` handles untrusted responses. A `RequestPacer` per
    environment handles rate limiting (429).

    A request that could not be sent is a failure of the environment. Any other failure is one of the connector, since
    the provider asks the bank. It counts for the environment too, but opens its breaker only if a second connector has
    failed without a success in between, or if the environment has only one connector.

    Args:
        clock: The clock.
        random: Returns [0, 1).
        observer: Is notified of the breakers of environments.
        connectors: The number of configured connectors of each environment. Those left out have one.
    """

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        observer: GrantObserver,
        connectors: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._clock = clock
        self._random = random
        self._observer = observer
        self._count = connectors
        self._environments: dict[str, CircuitBreaker] = {}
        self._connectors: dict[tuple[str, str], CircuitBreaker] = {}
        self._failing: dict[str, set[str]] = {}
        """The connectors of each environment that failed since its last success."""
        self._clients: dict[str, CircuitBreaker] = {}
        self._pacers: dict[str, RequestPacer] = {}
        self._registration_problems: dict[str, RegistrationProblem] = {}
        self._exchange_problems: dict[str, RegistrationProblem] = {}
        """As above, for code exchanges, whose client authentication may be another one (`dialect.code_auth`)."""
        self._rejected: dict[str, str] = {}
        """The first grant of each client that was rejected since the client's last success."""
        self.trust = TrustTracker(clock, random)
        self.confirmed_clock = ConfirmedClock(clock)

    @property
    def registration_problems(self) -> tuple[RegistrationProblem, ...]:
        """Client registrations that the provider rejects."""
        return tuple(self._registration_problems.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Faults of providers, and of our settings for them, as texts for an operator (/readyz)."""
        still = "valid tokens are still passed on"
        down = [f"environment {name}: the provider does not respond; {still}" for name in self.unavailable_environments]
        failing = [
            f"connectors.{name}: token requests to environment {environment} fail for this bank; {still}"
            for environment, name in self.unavailable_connectors
        ]
        refused = [
            f"clients.{one.client}: the provider returns {one.error}; check client_id and client_secret; {still}"
            for one in self.registration_problems
        ]
        exchanges = [
            f"clients.{one.client}: the provider returns {one.error} when users connect a bank; check client_id, "
            "client_secret and redirect_uri"
            for one in self._exchange_problems.values()
        ]
        return (*down, *failing, *refused, *exchanges, *map(str, self.trust.faults))

    @property
    def unavailable_environments(self) -> tuple[str, ...]:
        """Environments whose circuit breaker is open."""
        return tuple(name for name, breaker in self._environments.items() if breaker.is_open)

    @property
    def unavailable_connectors(self) -> tuple[tuple[str, str], ...]:
        """Environment and name of the connectors whose circuit breaker is open, unless that of the environment is."""
        return tuple(
            key
            for key, breaker in self._connectors.items()
            if breaker.is_open and key[0] not in self.unavailable_environments
        )

    def rejects(self, client: Client) -> bool:
        """Return True if the provider rejects the registration of this client, not only one of its grants."""
        return self._client(client).is_open

    def wait(self, client: Client, connector: str | None = None) -> float:
        """Return the seconds until a request of this client may be sent; 0.0 means now.

        For a refresh, `connector` is the connector of the grant.
        """
        untrusted = 0.0 if connector is None else self.trust.wait(client.environment.name, connector)
        return max(untrusted, *(breaker.wait() for breaker in self._breakers(client, connector)))

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
        return all(breaker.enter() for breaker in self._breakers(client, connector))

    def leave(self, client: Client, connector: str | None = None) -> None:
        """Undo `enter` without having sent a request."""
        for breaker in self._breakers(client, connector):
            breaker.leave()
        if connector is not None:
            self.trust.leave(client.environment.name, connector)

    def record_outcome(
        self, client: Client, outcome: Outcome, grant_id: str | None = None, connector: str | None = None
    ) -> RegistrationProblem | None:
        """Record the outcome of a request. Return the registration problem if this outcome is the first sign of it.

        `grant_id` and `connector` are those of the grant whose refresh the outcome belongs to.
        """
        registration = self._client(client)
        if isinstance(outcome, TokensIssued):
            self.confirmed_clock.confirm()
        if isinstance(outcome, ProviderDown) and outcome.busy:
            self._pacer(client).on_rate_limited()
            self._responded(client, connector)
            registration.leave()
            return None
        if isinstance(outcome, ProviderDown | OutcomeUnknown):
            self._failed(client, connector, outcome)
            # The outcome says nothing about the registration, so let another request probe it.
            registration.leave()
            return None
        self._responded(client, connector)
        if not isinstance(outcome, ClientRejected):
            registration.succeeded()
            self._registration_problems.pop(client.name, None)
            self._rejected.pop(client.name, None)
            return None
        if self._is_about_client(client, outcome, grant_id):
            registration.failed()
        else:
            registration.leave()
        return self._record_problem(self._registration_problems, client, outcome)

    def record_exchange(self, client: Client, outcome: TokenOutcome) -> RegistrationProblem | None:
        """Record the outcome of a code exchange. Return the registration problem if this is the first sign of it.

        No breaker depends on it: users who connect a bank must not hold back the refreshes of others.
        """
        if isinstance(outcome, ClientRejected):
            # The code may be that of another client, sent by an attacker, who must not cause notes.
            if outcome.error in _ABOUT_CODE:
                return None
            return self._record_problem(self._exchange_problems, client, outcome)
        if isinstance(outcome, TokensIssued | Refused | Untrusted):
            self._exchange_problems.pop(client.name, None)
        return None

    def _responded(self, client: Client, connector: str | None) -> None:
        """Record that the provider processed a request."""
        self._environment(client).succeeded()
        self._failing.pop(client.environment.name, None)
        if connector is not None:
            self._connector(client, connector).succeeded()

    def _failed(self, client: Client, connector: str | None, outcome: ProviderDown | OutcomeUnknown) -> None:
        environment = client.environment.name
        is_pause = isinstance(outcome, ProviderDown) and outcome.reason is DownReason.PAUSED
        if is_pause or may_concern_one_grant(outcome):
            self._environment(client).leave()
            if connector is not None:
                self._connector(client, connector).leave()
            return
        retry_after = (outcome.retry_after or 0.0) if isinstance(outcome, ProviderDown) else 0.0
        was_sent = isinstance(outcome, OutcomeUnknown) or outcome.reply is not None
        if connector is None or not was_sent:
            self._environment(client).failed(retry_after)
            if connector is not None:
                self._connector(client, connector).leave()
            return
        failing = self._failing.setdefault(environment, set())
        failing.add(connector)
        is_only_one = self._count.get(environment, 1) < OUTAGE_CONNECTORS
        self._environment(client).failed(retry_after, opens=is_only_one or len(failing) >= OUTAGE_CONNECTORS)
        self._connector(client, connector).failed(retry_after)

    def _is_about_client(self, client: Client, outcome: ClientRejected, grant_id: str | None) -> bool:
        """Return False if the rejection may be about this grant only, so that it must not hold back the others.

        Without a success in between, a second grant shows that the client or the endpoint is the cause.
        """
        if grant_id is None or not may_concern_one_grant(outcome):
            return True
        rejected = self._rejected.setdefault(client.name, grant_id)
        return rejected != grant_id

    def _record_problem(
        self, problems: dict[str, RegistrationProblem], client: Client, outcome: ClientRejected
    ) -> RegistrationProblem | None:
        """Return the problem if its error is a new one, so that each cause is logged once."""
        problem = problems.get(client.name) or RegistrationProblem(
            client.name, client.environment.name, outcome.error, self._clock()
        )
        is_new = outcome.error not in problem.reported
        reported = problem.reported | {outcome.error} if len(problem.reported) < MAX_CAUSES else problem.reported
        problems[client.name] = replace(problem, error=outcome.error, reported=reported)
        return problems[client.name] if is_new and reported != problem.reported else None

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

    def _connector(self, client: Client, connector: str) -> CircuitBreaker:
        key = (client.environment.name, connector)
        breaker = self._connectors.get(key)
        if breaker is None:
            breaker = self._connectors[key] = CircuitBreaker(self._clock, self._random, threshold=DOWN_AFTER)
        return breaker

    def _breakers(self, client: Client, connector: str | None) -> Iterator[CircuitBreaker]:
        """Return the breakers that must be closed for a request."""
        yield self._environment(client)
        yield self._client(client)
        if connector is not None:
            yield self._connector(client, connector)

    def _pacer(self, client: Client) -> RequestPacer:
        return self._pacers.setdefault(client.environment.name, RequestPacer(self._clock))

    def _client(self, client: Client) -> CircuitBreaker:
        breaker = self._clients.get(client.name)
        if breaker is None:
            breaker = self._clients[client.name] = CircuitBreaker(self._clock, self._random, threshold=1)
        return breaker
