"""A handle by which somebody else ends an exchange that is still open: a stream or a WebSocket outlives its grant."""

from __future__ import annotations

from collections.abc import Callable

OnCancel = Callable[[int, str], None]


class StreamCancellation:
    """The middleware puts one into `scope["akoya.ending"]` and calls `cancel` when the grant or the session is over."""

    __slots__ = ("_listeners", "cancelled")

    def __init__(self) -> None:
        self.cancelled: tuple[int, str] | None = None
        self._listeners: list[OnCancel] = []

    def cancel(self, code: int = 1008, reason: str = "the connection to the bank has ended") -> None:
        """`code`: the WebSocket close code (RFC 6455 section 7.4). Streams are cut. Only the first call counts."""
        if self.cancelled is None:
            self.cancelled = (code, reason)
            listeners, self._listeners = self._listeners, []
            for listener in listeners:
                listener(code, reason)

    def listen(self, listener: OnCancel) -> None:
        """Called once, at once if it has ended already."""
        if self.cancelled is None:
            self._listeners.append(listener)
        else:
            listener(*self.cancelled)

    def unlisten(self, listener: OnCancel) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
