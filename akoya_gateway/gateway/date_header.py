"""Adds a `Date` header to responses without one (RFC 9110 section 6.6.1). It is formatted once a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from akoya_gateway.clock import Clock


class DateHeader:
    """The current `Date` header."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._header = (b"date", b"")

    def header(self) -> tuple[bytes, bytes]:
        """Return the header for the current second."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._header = (b"date", formatdate(second, usegmt=True).encode("ascii"))
        return self._header

    def wrap_send(self, send: Send) -> Send:
        """Return a `send` that adds `Date` to responses that have none."""

        def dated(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                for name, _ in message["headers"]:
                    if name == b"date":
                        break
                else:
                    message["headers"] = [*message["headers"], self.header()]
            return send(message)

        return dated


class DateMiddleware:
    """ASGI middleware that adds `Date` to responses that have none."""

    def __init__(self, app: ASGIApp, date_header: DateHeader) -> None:
        self._app = app
        self._date_header = date_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, self._date_header.wrap_send(send) if scope["type"] == "http" else send)
