"""Closes a connection without losing the response that was just written to it.

Closing a socket that holds unread bytes resets the connection, and the reset may reach the client before the client has
read the response (RFC 9112 section 9.6). This module therefore closes the sending side first, and discards what still
arrives, up to a limit of bytes and seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

MAX_SECONDS = 2.0
MAX_BYTES = 1_048_576


class Owner(Protocol):
    """The protocol whose connection is being closed."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def detach(self) -> None:
        """Close the connection after the buffered data has been sent, without waiting for the client to close it."""


class LingeringClose(asyncio.Protocol):
    """Take the connection over from `owner` until the client closes it or a limit is reached.

    If the client closes it, `owner` gets `connection_lost` and nothing else. If a limit is reached, `owner` gets the
    connection back and its `detach` is called.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        *,
        max_seconds: float = MAX_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._left = max_bytes
        self._timer = loop.call_later(max_seconds, self._give_up)
        transport.set_protocol(self)
        transport.write_eof()
        # The server may have paused reading because of the bytes that are discarded now.
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._owner.connection_lost(exc)

    def _give_up(self) -> None:
        self._timer.cancel()
        if not self._transport.is_closing():
            self._transport.set_protocol(self._owner)  # type: ignore[arg-type]  # it is an asyncio.Protocol
            self._owner.detach()


class RequestTransport:
    """The transport that uvicorn's request cycle gets, with its own `close`.

    When the cycle closes the connection, the request body may still be arriving.
    """

    __slots__ = ("abort", "close", "get_extra_info", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.close = close
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.abort = transport.abort
        self.get_extra_info = transport.get_extra_info
