"""Tracks which connectors and environments return untrusted refresh responses, as seen by this process.

A single untrusted response affects only its grant (`state_machine`). Several in a row do not have their cause in the
grants. The refreshes affected by the same cause are then held back together, by one circuit breaker per connector and
one per environment, and the fault is reported to the operator:

- for a connector: `GRANT_THRESHOLD` different grants in a row, without a trusted response of that connector in between;
- for an environment: `CONNECTOR_THRESHOLD` of its connectors in a row, without a trusted response of any of them in
  between.

A grant that gets `OFFER_AFTER` untrusted responses in a row is reported as well, without holding back others. Refusals
from another token source (`review`) are only reported in this way. After a permanent change of a client_id, the tokens
of users who have not reconnected are refused for weeks, and the refreshes of other users must not wait for them.

The state is in memory and per process, and a reload or restart resets it. The first trusted response closes the
breaker. Each replica detects the fault itself, with at most `GRANT_THRESHOLD` requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client
from akoya_gateway.grants.circuit_breaker import CircuitBreaker
from akoya_gateway.grants.pauses import MAX_HOLD
from akoya_gateway.grants.refresh_policy import OFFER_AFTER
from akoya_gateway.oauth.outcomes import DistrustReason, Refused, TokenOutcome, TokensIssued, Untrusted

GRANT_THRESHOLD = 3
"""Number of different grants of one connector with untrusted responses that opens the connector's breaker."""
CONNECTOR_THRESHOLD = 2
"""Number of connectors with untrusted responses that opens the environment's breaker."""
MAX_ENTRIES = 16
"""Maximum number of members kept per row, and of single grants. The thresholds do not need more."""
COMPARE = "token_endpoint, client_id, issuer, jwks_uri and the clock"
"""What an operator has to compare with the provider's values."""


@dataclass(frozen=True, slots=True)
class ValidationFault:
    """Untrusted responses of an environment, for /readyz and the log.

    All `connectors` share the fault, or only `grants` of them if that is not 0. `error` is our own text about the last
    response. `since` is Unix seconds.
    """

    environment: str
    connectors: tuple[str, ...]
    error: str
    since: float
    grants: int = 0

    def __str__(self) -> str:
        of = f" of {' and '.join(self.connectors)}"
        of = f" for {self.grants} grant{'s' * (self.grants > 1)}{of}" if self.grants else of
        return (
            f"environment {self.environment}: refresh responses{of} cannot be trusted ({self.error}); compare "
            f"{COMPARE}; no grant is lost, and valid tokens are still passed on"
        )


@dataclass(slots=True)
class _Row:
    """Consecutive untrusted responses of one connector or one environment.

    The members are grant IDs or connectors, respectively.
    """

    breaker: CircuitBreaker
    members: set[str] = field(default_factory=set)
    responses: int = 0
    error: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class _Single:
    """A grant with `OFFER_AFTER` or more untrusted responses in a row. `at` is when the last one came."""

    environment: str
    connector: str
    error: str
    at: float


class TrustTracker:
    """Holds back refreshes after untrusted responses.

    Callers pass every refresh response to `review` and then to `record_outcome`, and check `wait` before each refresh.
    """

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._connectors: dict[tuple[str, str], _Row] = {}
        self._environments: dict[str, _Row] = {}
        self._singles: dict[str, _Single] = {}
        self._accepted: set[tuple[str, str]] = set()
        """Pairs of token sources: the second accepts refresh tokens that the first has issued."""

    def review(self, client: Client, source: str | None, outcome: TokenOutcome) -> TokenOutcome:
        """Return the outcome, or `Untrusted` in place of one that ends the grant but is no evidence against it.

        If the token endpoint or the client_id was changed, a refusal may only mean that the new one is wrong, because
        another server refuses every token. A mock server may also return the same tokens, of another `sub`, for every
        request. Such outcomes count once the new server has refreshed any token of the same source, because then the
        provider has only moved.

        Args:
            client: The client that sent the refresh.
            source: `Client.token_source` of the client that received the refresh token, or None if unknown.
            outcome: The outcome of the refresh.
        """
        now = client.token_source
        if source is None or source == now:
            return outcome
        if isinstance(outcome, TokensIssued):
            self._accepted.add((source, now))
            return outcome
        if (source, now) in self._accepted:
            return outcome
        if isinstance(outcome, Refused):
            found = outcome.error
        elif isinstance(outcome, Untrusted) and outcome.reason is DistrustReason.SUBJECT:
            found = "another sub"
        else:
            return outcome
        detail = f"{found} from another token_endpoint, or for another client_id, than issued the token"
        return Untrusted(detail, reason=DistrustReason.SOURCE, reply=outcome.reply)

    @property
    def faults(self) -> tuple[ValidationFault, ...]:
        """The faults of environments, of connectors whose environment has none, and of single grants of the others."""
        whole = [_fault(name, row.members, row) for name, row in self._environments.items() if row.breaker.is_open]
        covered = {fault.environment for fault in whole}
        single = [
            _fault(environment, {connector}, row)
            for (environment, connector), row in self._connectors.items()
            if row.breaker.is_open and environment not in covered
        ]
        open_rows = {(fault.environment, name) for fault in single for name in fault.connectors}
        grants: dict[tuple[str, str], list[_Single]] = {}
        for one in self._recent().values():
            if one.environment not in covered:
                grants.setdefault((one.environment, one.connector), []).append(one)
        few = [
            ValidationFault(environment, (connector,), ones[-1].error, ones[0].at, len(ones))
            for (environment, connector), ones in grants.items()
            if (environment, connector) not in open_rows
        ]
        return (*whole, *single, *few)

    def responses(self, environment: str, connector: str) -> int:
        """Return the number of consecutive untrusted responses of this connector."""
        return self._rows(environment, connector)[1].responses

    def wait(self, environment: str, connector: str) -> float:
        """Return the seconds until a grant of this connector may be refreshed; 0.0 means now."""
        return max(row.breaker.wait() for row in self._rows(environment, connector))

    def enter(self, environment: str, connector: str) -> None:
        """Register that the caller sends a request now. If a breaker is open, the request is its probe."""
        for row in self._rows(environment, connector):
            row.breaker.enter()

    def leave(self, environment: str, connector: str) -> None:
        """Undo `enter`: the caller sent no request, or its outcome says nothing about trust."""
        for row in self._rows(environment, connector):
            row.breaker.leave()

    def record_outcome(
        self, environment: str, connector: str, grant_id: str, outcome: object, in_a_row: int = 0
    ) -> ValidationFault | None:
        """Record a response. Return the fault that the operator has to correct, if this is the first sign of it.

        `in_a_row` is the number of untrusted responses of this grant, over all replicas.
        """
        is_reported = any(one.environment == environment for one in self._recent().values())
        self._singles.pop(grant_id, None)
        environment_row, connector_row = self._rows(environment, connector)
        if isinstance(outcome, TokensIssued):
            for row in (environment_row, connector_row):
                row.members.clear()
                row.responses = 0
                row.breaker.succeeded()
            return None
        if not isinstance(outcome, Untrusted) or outcome.reason is DistrustReason.SUBJECT:
            self.leave(environment, connector)
            return None
        self._singles = self._recent()
        if in_a_row >= OFFER_AFTER and len(self._singles) < MAX_ENTRIES:
            self._singles[grant_id] = _Single(environment, connector, outcome.detail, self._clock())
        if outcome.reason is DistrustReason.SOURCE:
            self.leave(environment, connector)
            is_new = grant_id in self._singles and not is_reported
            return ValidationFault(environment, (connector,), outcome.detail, self._clock(), 1) if is_new else None
        one_opened = self._add(connector_row, grant_id, outcome.detail, GRANT_THRESHOLD)
        if self._add(environment_row, connector, outcome.detail, CONNECTOR_THRESHOLD):
            return _fault(environment, environment_row.members, environment_row)
        return (
            _fault(environment, {connector}, connector_row)
            if one_opened and not environment_row.breaker.is_open
            else None
        )

    def _recent(self) -> dict[str, _Single]:
        """Return the single grants without those whose next response another replica must have received."""
        now = self._clock()
        return {grant_id: one for grant_id, one in self._singles.items() if now - one.at < MAX_HOLD}

    def _add(self, row: _Row, member: str, error: str, threshold: int) -> bool:
        """Count an untrusted response of `member`. Return True if it opens the breaker."""
        if not row.members:
            row.since = self._clock()
        row.error = error
        row.responses += 1
        if len(row.members) < MAX_ENTRIES:
            row.members.add(member)
        was_open = row.breaker.is_open
        if len(row.members) >= threshold:
            row.breaker.failed()
        return row.breaker.is_open and not was_open

    def _rows(self, environment: str, connector: str) -> tuple[_Row, _Row]:
        key = (environment, connector)
        environment_row = self._environments.get(environment) or self._environments.setdefault(environment, self._row())
        connector_row = self._connectors.get(key) or self._connectors.setdefault(key, self._row())
        return environment_row, connector_row

    def _row(self) -> _Row:
        return _Row(CircuitBreaker(self._clock, self._random, threshold=1))


def _fault(environment: str, connectors: set[str], row: _Row) -> ValidationFault:
    return ValidationFault(environment, tuple(sorted(connectors)), row.error, row.since)
