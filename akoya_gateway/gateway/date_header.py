"""The `Date` of answers whose upstream sent none (RFC 9110 section 6.6.1), made once a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from email.utils import formatdate

from akoya_gateway.clock import Clock
from akoya_gateway.gateway.lifespan import App, Message, Receive, Scope, Send


class DateHeader:
    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._header = (b"date", b"")

    def header(self) -> tuple[bytes, bytes]:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._header = (b"date", formatdate(second, usegmt=True).encode("ascii"))
        return self._header

    def wrap_send(self, send: Send) -> Send:
        """`send` that adds `Date` where the upstream sent none."""

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
    """Adds `Date` where the upstream sent none."""

    def __init__(self, app: App, date_header: DateHeader) -> None:
        self._app = app
        self._date_header = date_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, self._date_header.wrap_send(send) if scope["type"] == "http" else send)
