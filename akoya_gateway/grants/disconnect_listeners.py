"""Listeners called when this process disconnects a grant, so that its streams and WebSockets can be closed."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.grants.grant import Grant
from akoya_gateway.log import logger

DisconnectListener = Callable[[Grant], None]
"""Called with the revoked grant."""

log = logger("akoya_gateway.grants")


class DisconnectListeners:
    """A list of listeners. They run in the event loop and must not block. Their exceptions are logged and ignored."""

    def __init__(self) -> None:
        self._listeners: list[DisconnectListener] = []

    def subscribe(self, listener: DisconnectListener) -> Callable[[], None]:
        """Add a listener, and return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def notify(self, grant: Grant) -> None:
        """Call all listeners with the revoked grant."""
        for listener in tuple(self._listeners):
            try:
                listener(grant)
            except Exception:
                log.exception("listener failed", grant=grant.public_id)
