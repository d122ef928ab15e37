"""Tracks which connectors and environments return untrusted refresh responses, as seen by this process.

A single untrusted response affects only its grant (`state_machine`). Several in a row do not have their cause in the
grants. The refreshes affected by the same cause are then held back together, by one circuit breaker per connector and
one per environment, and the fault is reported to the operator:

- for a connector: `GRANT_THRESHOLD` different grants in a row, without a trusted response of that connector in between;
- for an environment: `CONNECTOR_THRESHOLD` of its connectors in a row, without a trusted response of any of them in
  between.

The state is in memory and per process, and a reload or restart resets it. The first trusted response closes the
breaker. Each replica detects the fault itself, with at most `GRANT_THRESHOLD` requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from akoya_gateway.clock import Clock
from akoya_gateway.grants.circuit_breaker import CircuitBreaker
from akoya_gateway.oauth.outcomes import DistrustReason, TokensIssued, Untrusted

GRANT_THRESHOLD = 3
"""Number of different grants of one connector with untrusted responses that opens the connector's breaker."""
CONNECTOR_THRESHOLD = 2
"""Number of connectors with untrusted responses that opens the environment's breaker."""
MAX_ENTRIES = 16
"""Maximum number of members kept per row. The thresholds do not need more."""


@dataclass(frozen=True, slots=True)
class ValidationFault:
    """Untrusted responses of an environment, for /readyz and the log.

    All `connectors` share the fault. `error` is our own text about the last response. `since` is Unix seconds.
    """

    environment: str
    connectors: tuple[str, ...]
    error: str
    since: float

    def __str__(self) -> str:
        of = f" of {' and '.join(self.connectors)}"
        return (
            f"environment {self.environment}: refresh responses{of} cannot be trusted ({self.error}); compare issuer, "
            "jwks_uri and the clock; no grant is lost, and valid tokens are still passed on"
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


class TrustTracker:
    """Holds back refreshes after untrusted responses.

    Callers report every refresh response with `record_outcome` and check `wait` before each refresh.
    """

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._connectors: dict[tuple[str, str], _Row] = {}
        self._environments: dict[str, _Row] = {}

    @property
    def faults(self) -> tuple[ValidationFault, ...]:
        """The faults of environments, and of connectors whose environment has no fault."""
        whole = [_fault(name, row.members, row) for name, row in self._environments.items() if row.breaker.is_open]
        covered = {fault.environment for fault in whole}
        single = [
            _fault(environment, {connector}, row)
            for (environment, connector), row in self._connectors.items()
            if row.breaker.is_open and environment not in covered
        ]
        return (*whole, *single)

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
        self, environment: str, connector: str, grant_id: str, outcome: object
    ) -> ValidationFault | None:
        """Record a response. Return the fault if this response is the first sign of it."""
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
        one_opened = self._add(connector_row, grant_id, outcome.detail, GRANT_THRESHOLD)
        if self._add(environment_row, connector, outcome.detail, CONNECTOR_THRESHOLD):
            return _fault(environment, environment_row.members, environment_row)
        return (
            _fault(environment, {connector}, connector_row)
            if one_opened and not environment_row.breaker.is_open
            else None
        )

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
