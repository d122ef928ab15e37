"""An event stream outlives the decision that let it in, as a WebSocket does: it is looked after the same way."""

from __future__ import annotations

from akoya_gateway.access.ask import Ask
from akoya_gateway.faces.sockets import OpenSocket, Sockets
from akoya_gateway.upstream.ending import Ending
from akoya_gateway.upstream.failures import Ended


class Stream:
    """One response that may become a stream. `ending` is what ends it: our proxy listens to it, and an app in this
    process meets it at its next `send`."""

    __slots__ = ("_ask", "_open", "_path", "_sockets", "ending")

    def __init__(self, sockets: Sockets, ask: Ask, path: str) -> None:
        self._sockets = sockets
        self._ask = ask
        self._path = path
        self._open: OpenSocket | None = None
        self.ending = Ending()

    def opened(self) -> None:
        """It is a stream: from now on its admission is decided again and again."""
        self._open = OpenSocket(self._ask, self._path, self._close)
        self._sockets.add(self._open)

    def over(self) -> None:
        if self._open is not None:
            self._sockets.remove(self._open)

    def error(self) -> Ended:
        return Ended("the bank connection of this stream has ended")

    async def _close(self, code: int) -> None:
        self.ending.end(code)
