"""Many concurrent HTTP requests over raw sockets: a thousand at several gateways at once, or a steady stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `body` is the token that the upstream received, if the request got that far (see `echo`)."""

    status: int
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def token(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name:
                return value.decode("latin-1").strip()
        return None


class Line(asyncio.Protocol):
    """One keep-alive connection with one request at a time. Responses must have a Content-Length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.open = True
        self._got = bytearray()
        self._end = 0
        self._response: asyncio.Future[Response] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._end:
            head = self._got.find(b"\r\n\r\n")
            if head < 0:
                return
            length = self._got.lower().find(b"content-length:", 0, head)
            self._end = head + 4 + int(self._got[length + 15 : self._got.index(b"\r\n", length)])
        if len(self._got) >= self._end and self._response is not None and not self._response.done():
            head = self._got.index(b"\r\n\r\n")
            self._response.set_result(
                Response(int(self._got[9:12]), bytes(self._got[:head]), bytes(self._got[head + 4 : self._end]))
            )

    def connection_lost(self, fault: Exception | None) -> None:
        self.open = False
        if self._response is not None and not self._response.done():
            self._response.set_exception(EOFError("the connection ended before an answer"))

    def fetch(self, request: bytes) -> asyncio.Future[Response]:
        """Return the response. Raise EOFError if the gateway is gone."""
        self._got.clear()
        self._end = 0
        self._response = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._response


async def line(port: int) -> Line:
    _, protocol = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", port)
    return protocol


def request(port: int, cookie: str, path: str = "/accounts") -> bytes:
    """Build a request as a script in the page would send it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nSec-Fetch-Mode: cors\r\n"
        f"Cookie: {cookie}\r\n\r\n"
    ).encode()


async def fetch(port: int, cookie: str, path: str = "/accounts") -> Response:
    """Send one request on its own connection. Raises OSError or EOFError if the gateway is gone."""
    own = await line(port)
    try:
        return await own.fetch(request(port, cookie, path))
    finally:
        own.transport.close()


class Crowd:
    """`each` connections to every port, opened in advance so that all requests arrive at the same time."""

    def __init__(self, ports: Sequence[int], each: int) -> None:
        self._ports = [port for port in ports for _ in range(each)]
        self._lines: list[Line] = []

    async def __aenter__(self) -> Crowd:
        for start in range(0, len(self._ports), 300):  # open at most as many at a time as fit a listener's backlog
            self._lines += await asyncio.gather(*[line(port) for port in self._ports[start : start + 300]])
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._lines:
            each.transport.close()

    async def rush(self, cookie: str, path: str = "/accounts") -> list[Response]:
        """Send a request on all connections at once and return the responses."""
        closed = [n for n, each in enumerate(self._lines) if not each.open]
        for n in closed:
            self._lines[n] = await line(self._ports[n])
        pending = [each.fetch(request(port, cookie, path)) for port, each in zip(self._ports, self._lines, strict=True)]
        return await asyncio.gather(*pending)


class Load:
    """Responses to a steady stream of requests. `faults` counts requests without a response by their errors."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.faults: Counter[str] = Counter()

    @property
    def lost(self) -> int:
        """The number of requests without a response."""
        return self.faults.total()

    def mark(self) -> int:
        return len(self.responses)

    def since(self, mark: int) -> list[Response]:
        return self.responses[mark:]

    def statuses(self, since: int = 0) -> set[int]:
        return {response.status for response in self.responses[since:]}


@contextlib.asynccontextmanager
async def load(
    ports: Sequence[int], cookies: Sequence[str], *, lanes: int = 4, pause: float = 0.02
) -> AsyncIterator[Load]:
    """Run `lanes` loops that send requests to each gateway in turn, for each visitor in turn."""
    seen = Load()

    async def lane(turn: int) -> None:
        while True:
            turn += 1
            try:
                async with asyncio.timeout(30):
                    seen.responses.append(await fetch(ports[turn % len(ports)], cookies[turn // 2 % len(cookies)]))
            except (OSError, EOFError) as fault:
                seen.faults[repr(fault)] += 1
            await asyncio.sleep(pause)

    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(lane(number)) for number in range(lanes)]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
