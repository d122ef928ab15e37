"""The observer interface for grant metrics. Label values are names from the configuration or from a fixed set."""

from __future__ import annotations

from typing import Protocol

from akoya_gateway.grants.grant import Grant, GrantState


class GrantObserver(Protocol):
    """Receives grant events. Methods are called synchronously and often; they must not raise and must not block."""

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        """Record a finished refresh.

        Args:
            environment: The environment of the grant.
            connector: The connector of the grant.
            outcome: granted, refused, client-rejected, provider-down, outcome-unknown or untrusted.
            seconds: The time from the request to the durable result.
        """

    def moved(self, grant: Grant, before: GrantState | None) -> None:
        """Record a durable state change to `grant.state`. `before` is the previous state, or None for a new grant."""

    def unsaved(self, count: int) -> None:
        """Set the number of refreshed token pairs that are only in memory because the store does not accept them."""

    def revoked(self, environment: str, outcome: str) -> None:
        """Record a finished revocation request: revoked, client-rejected, provider-down or outcome-unknown."""

    def breaker(self, environment: str, is_open: bool) -> None:
        """Record that the circuit breaker of the environment opened or closed."""


class NullGrantObserver:
    """Ignores all events."""

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
