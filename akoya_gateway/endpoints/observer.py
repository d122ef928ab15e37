"""What the journeys tell the operator: one call an event, wired to logs and metrics by the faces."""

from __future__ import annotations

from typing import Protocol


class AuthorizationObserver(Protocol):
    """Called synchronously; must not raise."""

    def attempt_started(self, connector: str) -> None: ...

    def attempt_ended(self, connector: str | None, result: str, request_id: str) -> None:
        """`result`: `granted`, or the stable code of the error. `request_id`: of the callback; pages show it."""

    def disconnected(self, connector: str) -> None: ...


class NullAuthorizationObserver:
    def attempt_started(self, connector: str) -> None:
        return

    def attempt_ended(self, connector: str | None, result: str, request_id: str) -> None:
        return

    def disconnected(self, connector: str) -> None:
        return
