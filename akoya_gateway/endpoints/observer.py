"""Observer of authorization events. The entry points connect it to logs and metrics."""

from __future__ import annotations

from typing import Protocol


class AuthorizationObserver(Protocol):
    """Receives authorization events. Called synchronously. Implementations must not raise."""

    def attempt_started(self, connector: str) -> None: ...

    def attempt_ended(self, connector: str | None, result: str, request_id: str) -> None:
        """Handle the end of an authorization attempt.

        Args:
            connector: None if the attempt is unknown.
            result: `granted`, or the stable error code.
            request_id: The ID of the callback request, which error pages show.
        """

    def disconnected(self, connector: str) -> None: ...


class NullAuthorizationObserver:
    """An observer that does nothing."""

    def attempt_started(self, connector: str) -> None:
        return

    def attempt_ended(self, connector: str | None, result: str, request_id: str) -> None:
        return

    def disconnected(self, connector: str) -> None:
        return
