"""Cancels an open stream or WebSocket from outside, because it can outlive the grant that it was admitted with."""

from __future__ import annotations

from collections.abc import Callable

OnCancel = Callable[[int, str], None]
"""Called with the WebSocket close code and the reason."""


class StreamCancellation:
    """The cancellation handle of one exchange.

    The middleware stores it in `scope["akoya.ending"]` and calls `cancel` when the grant or the session ends.
    """

    cancelled: tuple[int, str] | None = None
    _listeners: tuple[OnCancel, ...] = ()

    def cancel(self, code: int = 1008, reason: str = "the connection to the bank has ended") -> None:
        """Cancel the exchange. Only the first call has an effect.

        A WebSocket is closed with `code` (RFC 6455 section 7.4) and `reason`. An HTTP stream is aborted.
        """
        if self.cancelled is None:
            self.cancelled = (code, reason)
            listeners, self._listeners = self._listeners, ()
            for listener in listeners:
                listener(code, reason)

    def listen(self, listener: OnCancel) -> None:
        """Call `listener` on cancellation, or immediately if the exchange is already cancelled."""
        if self.cancelled is None:
            self._listeners += (listener,)
        else:
            listener(*self.cancelled)

    def unlisten(self, listener: OnCancel) -> None:
        """Remove `listener`. Does nothing if it is not registered."""
        if listener in self._listeners:
            left = list(self._listeners)
            left.remove(listener)
            self._listeners = tuple(left)
