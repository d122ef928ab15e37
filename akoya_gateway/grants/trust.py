"""Which connectors and environments send responses that cannot be trusted, as far as this process has seen.

One grant's untrusted response is held against that grant alone (`life`). Several in a row have another cause than the
grants, so the refreshes that share it are held back together, by one circuit breaker for each connector and one for
each environment, and an operator is told:

- a connector: `GRANT_THRESHOLD` different grants in a row, without a good response of that connector in between;
- an environment: two or more of its connectors in a row, without a good response of any of them in between.

Kept in memory and by each process: a reload or a restart begins with nothing, and the first good response closes the
breaker. Replicas find out for themselves, with at most `GRANT_THRESHOLD` requests each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from akoya_gateway.clock import Clock
from akoya_gateway.grants.circuit_breaker import CircuitBreaker
from akoya_gateway.oauth.outcomes import DistrustReason, TokensIssued, Untrusted

GRANT_THRESHOLD = 3
"""Different grants of one connector."""
CONNECTOR_THRESHOLD = 2
MAX_ENTRIES = 16
"""Members of one row: more would tell nothing new."""


@dataclass(frozen=True, slots=True)
class ValidationFault:
    """Responses that cannot be trusted, for /readyz and the log. `connectors`: all of them share the fault. `error` is
    our own text on the last response; `since` is Unix seconds."""

    environment: str
    connectors: tuple[str, ...]
    error: str
    since: float

    def __str__(self) -> str:
        of = f" of {' and '.join(self.connectors)}"
        return (
            f"environment {self.environment}: refresh responses{of} cannot be trusted ({self.error}); compare issuer, "
            "jwks_uri and the clock; no grant is lost, and tokens at hand are still passed"
        )


@dataclass(slots=True)
class _Row:
    """Untrusted responses in a row."""

    breaker: CircuitBreaker
    members: set[str] = field(default_factory=set)
    responses: int = 0
    error: str = ""
    since: float = 0.0


class TrustTracker:
    """Told of every refresh response, and asked before each refresh."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._connectors: dict[tuple[str, str], _Row] = {}
        self._environments: dict[str, _Row] = {}

    @property
    def faults(self) -> tuple[ValidationFault, ...]:
        """Those of environments, and those of connectors whose environment has none."""
        whole = [_fault(name, row.members, row) for name, row in self._environments.items() if row.breaker.is_open]
        covered = {fault.environment for fault in whole}
        single = [
            _fault(environment, {connector}, row)
            for (environment, connector), row in self._connectors.items()
            if row.breaker.is_open and environment not in covered
        ]
        return (*whole, *single)

    def responses(self, environment: str, connector: str) -> int:
        """Return how many responses of this connector in a row could not be trusted."""
        return self._rows(environment, connector)[1].responses

    def wait(self, environment: str, connector: str) -> float:
        """Return the seconds until a grant of this connector may be refreshed; 0.0: now."""
        return max(row.breaker.wait() for row in self._rows(environment, connector))

    def enter(self, environment: str, connector: str) -> None:
        """The caller asks now; where a breaker is open it asks for all others."""
        for row in self._rows(environment, connector):
            row.breaker.enter()

    def leave(self, environment: str, connector: str) -> None:
        """The caller that entered does not ask after all, or learnt nothing."""
        for row in self._rows(environment, connector):
            row.breaker.leave()

    def answered(self, environment: str, connector: str, grant_id: str, answer: object) -> ValidationFault | None:
        """Record a response; return the fault if this response is the first sign of it."""
        whole, one = self._rows(environment, connector)
        if isinstance(answer, TokensIssued):
            for row in (whole, one):
                row.members.clear()
                row.responses = 0
                row.breaker.succeeded()
            return None
        if not isinstance(answer, Untrusted) or answer.reason is DistrustReason.SUBJECT:
            self.leave(environment, connector)
            return None
        one_opened = self._add(one, grant_id, answer.detail, GRANT_THRESHOLD)
        if self._add(whole, connector, answer.detail, CONNECTOR_THRESHOLD):
            return _fault(environment, whole.members, whole)
        return _fault(environment, {connector}, one) if one_opened and not whole.breaker.is_open else None

    def _add(self, row: _Row, member: str, error: str, many: int) -> bool:
        """Return True if this opens the breaker."""
        if not row.members:
            row.since = self._clock()
        row.error = error
        row.responses += 1
        if len(row.members) < MAX_ENTRIES:
            row.members.add(member)
        was_open = row.breaker.is_open
        if len(row.members) >= many:
            row.breaker.failed()
        return row.breaker.is_open and not was_open

    def _rows(self, environment: str, connector: str) -> tuple[_Row, _Row]:
        key = (environment, connector)
        whole = self._environments.get(environment) or self._environments.setdefault(environment, self._row())
        one = self._connectors.get(key) or self._connectors.setdefault(key, self._row())
        return whole, one

    def _row(self) -> _Row:
        return _Row(CircuitBreaker(self._clock, self._random, threshold=1))


def _fault(environment: str, connectors: set[str], row: _Row) -> ValidationFault:
    return ValidationFault(environment, tuple(sorted(connectors)), row.error, row.since)
