"""Notifies systemd that the gateway is ready, alive or stopping (sd_notify(3)), for units with `Type=notify`.

Outside of such a unit the environment variables are not set, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress


class ServiceManager:
    """The socket of systemd. A message that cannot be sent is dropped: systemd then acts on its own timeouts."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Read `NOTIFY_SOCKET` and `WATCHDOG_USEC`. An address that begins with `@` is in the abstract namespace."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock = clock
        microseconds = environ.get("WATCHDOG_USEC", "")
        # sd_watchdog_enabled(3) recommends to report every half of the limit.
        limit = int(microseconds) if self._address and microseconds.isdigit() else 0
        self.interval = limit / 2_000_000 if limit else None
        """Seconds between two calls of `alive`. None if there is no watchdog."""
        self._reported_at = -float("inf")

    def ready(self) -> None:
        """Report that requests are served."""
        self._send("READY=1\nSTATUS=Serving requests")

    def stopping(self) -> None:
        """Report that the process drains and then exits."""
        self._send("STOPPING=1\nSTATUS=Draining: requests in progress and token refreshes finish")

    def alive(self) -> None:
        """Report that the process works, if half of the watchdog's limit has passed since the last report."""
        now = self._clock()
        if self.interval is not None and now - self._reported_at >= self.interval:
            self._reported_at = now
            self._send("WATCHDOG=1")

    async def report_alive_forever(self) -> None:
        """Call `alive` from the event loop, so that a blocked loop is noticed. Without a watchdog return at once."""
        while self.interval is not None:
            self.alive()
            await asyncio.sleep(self.interval / 2)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.setblocking(False)
            notifications.sendto(message.encode(), self._address)
