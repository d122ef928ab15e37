"""Who wants to know when a grant is disconnected through this process: what outlives the request it was let in by."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.grants.grant import Grant
from akoya_gateway.log import logger

DisconnectListener = Callable[[Grant], None]

log = logger("akoya_gateway.grants")


class DisconnectListeners:
    """Callbacks are called in the event loop, must not block, and what they raise is logged and swallowed."""

    def __init__(self) -> None:
        self._listeners: list[DisconnectListener] = []

    def subscribe(self, listener: DisconnectListener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def notify(self, grant: Grant) -> None:
        """The grant is gone."""
        for farewell in tuple(self._listeners):
            try:
                farewell(grant)
            except Exception:
                log.exception("listener failed", grant=grant.id)
