"""Requests at a constant rate, whatever the answers take, as a process of its own.

    python -m benchmarks.rig.steady URL RATE SECONDS CONNECTIONS SEED HEADERS-AS-JSON

An open loop: when each request is due is decided beforehand, as clients that know nothing of each other would come (a
Poisson process; the same seed gives the same moments). It goes out on a connection that is free, or waits until one is,
and its latency counts from when it was due: a server that stops for 20 ms is charged for all who came meanwhile.

On stderr one line when the warm-up is over, on stdout what came of it, in microseconds. `late`: the 99th percentile of
how long after it was due a request went out although a connection was free. That is this program's own fault and says
how far its numbers can be trusted; `load_cpu` is the part of a core it took.
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
"""Seconds without any answer, after which what is missing has failed."""
_LENGTH = b"content-length:"


class BadAnswer(Exception):
    """Not a 200 that says its length, or the end of the connection."""


class Connection:
    """`due`: of the request under way."""

    def __init__(self, address: tuple[str, int], due: int = 0) -> None:
        self.socket = socket.create_connection(address, 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = due
        self._begun = b""

    def answered(self) -> int:
        """Bytes of the answer, once it is whole; 0 until then. Raises BadAnswer or OSError."""
        data = self.socket.recv(65536)
        if not data:
            raise BadAnswer("the connection was closed")
        if self._begun:
            data = self._begun + data
        size = length(data)
        whole = 0 < size <= len(data)
        self._begun = b"" if whole else data
        return size if whole else 0


def length(data: bytes) -> int:
    """Of the answer that begins so; 0 as long as that cannot be seen. Raises BadAnswer."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(_LENGTH)
    if at < 0 or not head.startswith(b"http/1.1 200"):
        raise BadAnswer(data[:200].decode("latin-1"))
    return end + 4 + int(head[at + len(_LENGTH) :].split(b"\r", 1)[0])


def moments(rate: float, seconds: float, seed: int) -> list[int]:
    """When requests are due, in nanoseconds from the start."""
    found, at = [], 0.0
    chance = random.Random(seed)
    while (at := at + chance.expovariate(rate)) < seconds:
        found.append(int(at * 1e9))
    return found


class Load:
    """Times are nanoseconds of `clock`."""

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
        """What was measured until now."""
        self.latencies.clear()
        self.late.clear()
        self.failures.clear()
        self.bytes = 0

    def send(self, due: Sequence[int]) -> None:
        """A request at each of these times. Returns when all are answered, or have failed."""
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
        with contextlib.suppress(OSError):  # `_take` will see it, too.
            connection.socket.send(self._request)

    def _take(self, wait: float) -> bool:
        readable, _, _ = select.select(list(self._open), (), (), wait)
        for one in readable:
            connection = self._open[one]
            try:
                size = connection.answered()
            except (BadAnswer, OSError) as error:
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
        """Counted, with the latency by now; another connection takes the place of this one."""
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
            self._failed(connection, f"no answer within {PATIENCE:g} seconds")


def run(load: Load, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Warmed up, then measured."""
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
    """Of nanoseconds in order, in microseconds."""
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
        # Or every sleep is up to 50 us longer than asked for.
        Path("/proc/self/timerslack_ns").write_text("1")
    gc.disable()
    load = Load((parts.hostname, parts.port), request, int(connections))
    found = run(load, float(rate), float(seconds), int(seed))
    if load.failures:
        print(f"{len(load.failures)} failed: {load.failures[0]}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
