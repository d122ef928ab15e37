"""Adds a `Date` header to responses without one (RFC 9110 section 6.6.1). It is formatted once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

from akoya_gateway.access.request import Headers
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

    def add_to(self, headers: Headers) -> None:
        """Append the header to those of a response that has none."""
        for name, _ in headers:
            if name == b"date":
                return
        headers.append(self.header())
