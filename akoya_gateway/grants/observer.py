"""What happens to grants, for metrics. Labels are names from the configuration and words of a fixed set."""

from __future__ import annotations

from typing import Protocol

from akoya_gateway.grants.grant import Grant, GrantState


class GrantObserver(Protocol):
    """Called synchronously and often; must not raise and must not block."""

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        """One refresh call was answered. `outcome`: granted, refused, operator_fault, provider_down,
        outcome_unknown, untrusted; `seconds` from the request to the durable result."""

    def moved(self, grant: Grant, before: GrantState | None) -> None:
        """The grant is now, durably, in `grant.state`; `before` is None for a new one."""

    def unsaved(self, count: int) -> None:
        """How many refreshed pairs are held in memory only, because the store does not take them."""

    def revoked(self, environment: str, outcome: str) -> None:
        """One revocation call was answered: revoked, operator_fault, provider_down, outcome_unknown."""

    def breaker(self, environment: str, is_open: bool) -> None:
        """The circuit breaker of the environment opened or closed."""


class NullGrantObserver:
    """Sees nothing."""

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        return

    def moved(self, grant: Grant, before: GrantState | None) -> None:
        return

    def unsaved(self, count: int) -> None:
        return

    def revoked(self, environment: str, outcome: str) -> None:
        return

    def breaker(self, environment: str, is_open: bool) -> None:
        return
