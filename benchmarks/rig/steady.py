"""Sends requests at a constant rate, regardless of how long the responses take. Runs as a separate process.

    python -m benchmarks.rig.steady URL RATE SECONDS CONNECTIONS SEED HEADERS-AS-JSON

This is an open loop. The times at which requests are due are computed in advance, as if independent clients sent them
(a Poisson process; the same seed gives the same times). A request is sent on a free connection, or waits for one. Its
latency counts from the time it was due, so a server that stalls for 20 ms is charged for all requests that were due
meanwhile.

Prints one line to stderr when the warm-up is over, and the results to stdout, in microseconds. `late` is the 99th
percentile of the delay with which a request was sent although a connection was free. This program causes that delay, so
it shows how far the numbers can be trusted. `load_cpu` is the fraction of a core that this program used.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import resource
import select
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns as clock
from urllib.parse import urlsplit

WARM_UP = 0.5
PATIENCE = 5.0
"""Seconds without any response after which all pending requests count as failed."""
_LENGTH = b"content-length:"


class BadResponse(Exception):
    """Raised for a response that is not a 200 with Content-Length, and when the connection is closed."""


class Connection:
    """One connection. `due` is the time at which its current request was due."""

    def __init__(self, address: tuple[str, int], due: int = 0) -> None:
        self.socket = socket.create_connection(address, 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = due
        self._begun = b""

    def read_response(self) -> int:
        """Read, and return the size of the response once it is complete, else 0. Raises BadResponse or OSError."""
        data = self.socket.recv(65536)
        if not data:
            raise BadResponse("the connection was closed")
        if self._begun:
            data = self._begun + data
        size = length(data)
        whole = 0 < size <= len(data)
        self._begun = b"" if whole else data
        return size if whole else 0


def length(data: bytes) -> int:
    """Return the size of the response that starts with `data`, or 0 if the head is incomplete. Raises BadResponse."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(_LENGTH)
    if at < 0 or not head.startswith(b"http/1.1 200"):
        raise BadResponse(data[:200].decode("latin-1"))
    return end + 4 + int(head[at + len(_LENGTH) :].split(b"\r", 1)[0])


def moments(rate: float, seconds: float, seed: int) -> list[int]:
    """Return the times at which requests are due, in nanoseconds from the start."""
    found, at = [], 0.0
    chance = random.Random(seed)
    while (at := at + chance.expovariate(rate)) < seconds:
        found.append(int(at * 1e9))
    return found


class Load:
    """The load generator and its measurements. Times are in nanoseconds of `clock`."""

    def __init__(self, address: tuple[str, int], request: bytes, connections: int) -> None:
        self._address = address
        self._request = request
        self._idle = [Connection(address) for _ in range(connections)]
        self._open = {one.socket: one for one in self._idle}
        self._free_since = 0
        self.latencies: list[int] = []
        self.late: list[int] = []
        self.bytes = 0
        self.failures: list[str] = []

    def forget(self) -> None:
        """Discard all measurements so far."""
        self.latencies.clear()
        self.late.clear()
        self.failures.clear()
        self.bytes = 0

    def send(self, due: Sequence[int]) -> None:
        """Send a request at each of these times. Returns when all have a response or have failed."""
        at = 0
        while at < len(due) or len(self._idle) < len(self._open):
            while self._idle and at < len(due) and due[at] <= clock():
                self._ask(due[at])
                at += 1
            wait = max(0, due[at] - clock()) / 1e9 if self._idle and at < len(due) else PATIENCE
            if not self._take(wait) and wait == PATIENCE:
                self._give_up()

    def _ask(self, due: int) -> None:
        connection = self._idle.pop()
        connection.due = due
        self.late.append(clock() - max(due, self._free_since))
        with contextlib.suppress(OSError):  # `_take` gets the same error and counts it.
            connection.socket.send(self._request)

    def _take(self, wait: float) -> bool:
        readable, _, _ = select.select(list(self._open), (), (), wait)
        for one in readable:
            connection = self._open[one]
            try:
                size = connection.read_response()
            except (BadResponse, OSError) as error:
                self._failed(connection, str(error))
                continue
            if size:
                self.bytes += size
                self._free(connection)
        return bool(readable)

    def _free(self, connection: Connection) -> None:
        now = clock()
        self.latencies.append(now - connection.due)
        if not self._idle:
            self._free_since = now
        self._idle.append(connection)

    def _failed(self, connection: Connection, why: str) -> None:
        """Count a failed request with its latency so far, and replace its connection."""
        self.failures.append(why)
        connection.socket.close()
        del self._open[connection.socket]
        fresh = Connection(self._address, connection.due)
        self._open[fresh.socket] = fresh
        if connection in self._idle:
            self._idle[self._idle.index(connection)] = fresh
        else:
            self._free(fresh)

    def _give_up(self) -> None:
        for connection in [one for one in self._open.values() if one not in self._idle]:
            self._failed(connection, f"no response within {PATIENCE:g} seconds")


def run(load: Load, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Warm up, then measure. Returns the results."""
    load.send(from_now(moments(rate, WARM_UP, seed)))
    load.forget()
    print("measuring", file=sys.stderr, flush=True)
    began, used = clock(), _cpu()
    load.send(from_now(moments(rate, seconds, seed)))
    took = clock() - began
    latencies, late = sorted(load.latencies), sorted(load.late)
    return {
        "requests": len(latencies),
        "micros": took / 1e3,
        "bytes": load.bytes,
        "errors": len(load.failures),
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "p999": percentile(latencies, 0.999),
        "late": percentile(late, 0.99),
        "load_cpu": (_cpu() - used) / took * 1e9,
    }


def from_now(offsets: Sequence[int]) -> list[int]:
    now = clock()
    return [now + offset for offset in offsets]


def percentile(ordered: Sequence[int], part: float) -> float:
    """Return a percentile of sorted nanoseconds, in microseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1e3 if ordered else 0.0


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    url, rate, seconds, connections, seed, headers = sys.argv[1:]
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    lines = "".join(f"{name}: {value}\r\n" for name, value in json.loads(headers).items())
    request = f"GET {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{lines}\r\n".encode()
    with contextlib.suppress(OSError):
        # Otherwise every sleep takes up to 50 us longer than requested.
        Path("/proc/self/timerslack_ns").write_text("1")
    gc.disable()
    load = Load((parts.hostname, parts.port), request, int(connections))
    found = run(load, float(rate), float(seconds), int(seed))
    if load.failures:
        print(f"{len(load.failures)} failed: {load.failures[0]}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
