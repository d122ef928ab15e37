"""Measures the CPU time of one request inside the process, without the kernel, for each path through the gateway.

    python -m benchmarks.inside                      a table of all paths
    python -m benchmarks.inside lane asgi            these paths only
    python -m benchmarks.inside --profile asgi       the time of one path, by file
    python -m benchmarks.inside --against ../old     this tree and another one in turn; the smallest of all rounds

The bytes of a request are passed directly to uvicorn's protocol, which writes to a transport that counts writes. The
upstream is another such transport and responds immediately. The results therefore vary little when the machine is busy,
and show the effect of a code change. `benchmarks.compare` measures what a client sees.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table
from uvicorn.server import ServerState
from websockets.utils import accept_key

from akoya_gateway import Gateway, load_config, sidecar
from akoya_gateway.config.model import Config, Logging
from akoya_gateway.entrypoints.sidecar import Sidecar
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.observability.access_log import AccessLog
from akoya_gateway.observability.logs import open_log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.stdout import StandardOutput
from akoya_gateway.secret import Secret
from akoya_gateway.server.uvicorn_server import server_config
from akoya_gateway.upstream.http.origin import PooledOrigin
from benchmarks.rig import gateway
from benchmarks.rig.asgi_apps import bare

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Wed, 25 Nov 2026 18:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 12\r\nConnection: keep-alive\r\n%b\r\nhello, world"
)
BROWSER = (
    b"host: 127.0.0.1\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    b"accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\naccept-language: en-US,en;q=0.5\r\n"
    b"accept-encoding: gzip, deflate\r\nsec-fetch-mode: cors\r\nsec-fetch-site: same-origin\r\n"
)
UPGRADE = (
    b"origin: http://127.0.0.1:8080\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ACCEPTED = b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
TEXT = b"0123456789abcdef" * 4
MESSAGE = bytes((0x81, 0x80 | len(TEXT))) + b"\1\2\3\4" + bytes(c ^ (at % 4 + 1) for at, c in enumerate(TEXT))
ECHO = bytes((0x81, len(TEXT))) + TEXT
CLOSE = b"\x88"
FORWARD_AUTH_HEADERS = b"x-forwarded-method: GET\r\nx-forwarded-uri: /bench/small\r\n"


@dataclass(frozen=True)
class Way:
    """A path through the gateway."""

    what: str
    app: str
    """`bare`, `middleware`, `app` (`akoya_gateway:sidecar`) or `sidecar`."""
    lane: bool = True
    varied: bool = False
    """Whether all requests and all responses differ."""
    logged: bool = False
    """Whether to write the access log, to /dev/null: one write a request, because requests do not overlap."""
    path: bytes = b"/bench/small"
    socket: bool = False
    """Whether to use a WebSocket. One round trip is a small message and its echo."""
    in_process: str = "headers"
    """`signing.in_process`."""


WAYS = {
    "bare": Way("a bare ASGI app on uvicorn", "bare"),
    "middleware": Way("the same in Gateway(app)", "middleware"),
    "middleware-scope": Way("the same, with signing.in_process: scope", "middleware", in_process="scope"),
    "asgi": Way("akoya_gateway:sidecar on uvicorn", "app"),
    "asgi-varied": Way("the same, all requests and all responses different", "app", varied=True),
    "general": Way("akoya-gateway run --no-fast-lane", "sidecar", lane=False),
    "general-varied": Way("the same, all requests and all responses different", "sidecar", lane=False, varied=True),
    "lane": Way("the sidecar's fast lane", "sidecar"),
    "lane-varied": Way("the same, all requests and all responses different", "sidecar", varied=True),
    "lane-logged": Way("the same, with the access log", "sidecar", logged=True),
    "forward-auth": Way("/akoya/forward-auth", "sidecar", path=b"/akoya/forward-auth"),
    "sockets-asgi": Way("a WebSocket message and its echo, relayed as messages", "sidecar", lane=False, socket=True),
    "sockets": Way("a WebSocket message and its echo, forwarded unchanged", "sidecar", socket=True),
}


class CountingTransport:
    """Fake transport that counts writes and passes the data to a callback."""

    def __init__(self, on_data: Callable[[bytes], None] = lambda data: None) -> None:
        self.written = 0
        self.protocol: Any = None
        self._on_data = on_data

    def write(self, data: bytes) -> None:
        self.written += 1
        self._on_data(data)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080)}.get(name, default)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        raise RuntimeError("the connection was closed")

    abort = close


class Bench:
    """One path, ready to be measured: `run(count)` sends `count` requests one after the other."""

    def __init__(self, way: Way, protocol: Any, headers: bytes) -> None:
        self._way = way
        self._protocol = protocol
        self._transport = CountingTransport()
        self._request = b"GET %b%%b HTTP/1.1\r\n%b%%b\r\n" % (way.path, BROWSER + headers)
        self._number = 0
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)

    async def run(self, count: int) -> None:
        transport, protocol, request = self._transport, self._protocol, self._request
        for _ in range(count):
            self._number = number = self._number + 1
            varied = (b"", b"")
            if self._way.varied:
                varied = b"/%d?page=%d" % (number, number), b"x-trace: %d\r\n" % number
            before = transport.written
            protocol.data_received(request % varied)
            while transport.written == before or not protocol.cycle.response_complete:
                await asyncio.sleep(0)

    async def close(self) -> None: ...


class WebSocketTransport(CountingTransport):
    """Fake transport that may be closed."""

    closed = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class SocketBench:
    """One WebSocket: `run(count)` sends `count` messages and waits for each echo."""

    def __init__(self, protocol: Any, headers: bytes) -> None:
        self._transport = WebSocketTransport()
        self._transport.protocol = protocol
        protocol.connection_made(self._transport)
        protocol.data_received(b"GET /bench/small HTTP/1.1\r\n%b%b%b\r\n" % (BROWSER, UPGRADE, headers))

    async def run(self, count: int) -> None:
        transport = self._transport
        while not transport.written:
            await asyncio.sleep(0)
        for _ in range(count):
            before = transport.written
            transport.protocol.data_received(MESSAGE)
            while transport.written == before:
                await asyncio.sleep(0)

    async def close(self) -> None:
        self._transport.close()
        await asyncio.sleep(0.1)


@contextmanager
def sockets_of_wires() -> Any:
    """Replace each WebSocket that a pool opens by a fake transport that echoes immediately."""
    loop = asyncio.get_running_loop()

    async def connect(origin: PooledOrigin, make: Callable[[], Any], upstream: Any) -> Any:
        def respond(data: bytes) -> None:
            if data.startswith(b"GET "):
                key = next(line for line in data.split(b"\r\n") if line.startswith(b"sec-websocket-key: "))[19:]
                loop.call_soon(transport.protocol.data_received, ACCEPTED % accept_key(key.decode()).encode())
            elif data[:1] == CLOSE:
                transport.close()
            else:
                loop.call_soon(transport.protocol.data_received, ECHO)

        transport = WebSocketTransport(respond)
        transport.protocol = make()
        transport.protocol.connection_made(transport)
        return transport.protocol

    with _connecting(connect):
        yield


@contextmanager
def upstream_of_wires(varied: bool) -> Any:
    """Replace each connection that a pool opens by a fake transport that responds immediately."""
    loop, number = asyncio.get_running_loop(), 0

    async def connect(origin: PooledOrigin, make: Callable[[], Any], upstream: Any) -> Any:
        connection = make()

        def respond(data: bytes) -> None:
            nonlocal number
            number += 1
            extra = b"X-Request-Id: %d\r\n" % number if varied else b""
            loop.call_soon(connection.data_received, RESPONSE % extra)

        connection.connection_made(CountingTransport(respond))
        return connection

    with _connecting(connect):
        yield


@contextmanager
def _connecting(connect: Any) -> Any:
    before = PooledOrigin.connect
    PooledOrigin.connect = connect  # type: ignore[method-assign]
    try:
        yield
    finally:
        PooledOrigin.connect = before  # type: ignore[method-assign]


async def measure(way: Way, config: Config, rounds: int, count: int, profile: cProfile.Profile | None) -> list[float]:
    """Return the microseconds of CPU per request, for each round."""
    with sockets_of_wires() if way.socket else upstream_of_wires(way.varied):
        served, runtime = await _served(way, config)
        served.load()
        protocol = served.http_protocol_class(config=served, server_state=ServerState(), app_state={})  # type: ignore[call-arg]
        headers = b"" if runtime is None else await _session(runtime, config, way)
        bench = SocketBench(protocol, headers) if way.socket else Bench(way, protocol, headers)
        await bench.run(200)
        if profile is not None:
            profile.enable()
            await bench.run(count)
            profile.disable()
        found = []
        for _ in range(rounds):
            gc.collect()
            # The CPU time of this thread: other processes and threads do not count, so a loaded machine matters little.
            began = time.thread_time_ns()
            await bench.run(count)
            found.append((time.thread_time_ns() - began) / count / 1e3)
        await bench.close()
        return found


async def _served(way: Way, config: Config) -> tuple[uvicorn.Config, Runtime | None]:
    if way.app == "sidecar":
        service = Sidecar(
            config,
            Metrics("bench"),
            open_log(config.logging),
            AccessLog(Logging(access=way.logged), StandardOutput(os.open(os.devnull, os.O_WRONLY)).gather),
            fast_lane=way.lane,
        )
        await service.startup()
        served = server_config(service.app, head_limit=65536, protocol=service.protocol, websockets=service.websockets)
        return served, service._gateway.runtime
    app, gateway = _app(way, config)
    runtime = await gateway.startup() if gateway is not None else None
    quiet: dict[str, Any] = {"proxy_headers": False, "server_header": False, "date_header": False}
    return uvicorn.Config(app, http="httptools", access_log=False, lifespan="off", log_config=None, **quiet), runtime


def _app(way: Way, config: Config) -> tuple[Any, Gateway | None]:
    if way.app == "middleware":
        wrapped = Gateway(bare, config)
        return wrapped, wrapped
    if way.app == "app":
        straight = cast("AsgiFastLane", sidecar(config))
        return straight, straight.gateway
    return bare, None


async def _session(runtime: Runtime, config: Config, way: Way) -> bytes:
    """Return the header lines of a session with a live grant, which stays cached during the measurement."""
    runtime.sessions._valid = runtime.grants._cache._valid = 1e6
    session, value = await runtime.sessions.start()
    token = TokenSet(Secret("x" * 900), Secret("r" * 40), time.time() + 86_400, ("openid", "profile"), "sub")
    client = next(iter(config.clients.values()))
    await runtime.grants.connect(session.owner, client, "mikomo", token)
    await runtime.sessions.resolve(value)
    await runtime.grants.for_owner(session.owner)
    cookie = f"cookie: {config.sessions.cookie.name}={value}\r\n".encode()
    return cookie + FORWARD_AUTH_HEADERS if way.path != b"/bench/small" else cookie


def _config(folder: Path, akoya: Any, way: Way) -> Config:
    trusted = way.app in ("sidecar", "app")
    upstream = None if way.app == "middleware" else "http://127.0.0.1:1"
    content = gateway.document(akoya, folder, 8080, upstream, store="memory://", trusted=trusted)
    content["signing"]["in_process"] = way.in_process
    return load_config(gateway.write(folder, content), {**os.environ, **gateway.ENVIRON})


def measure_ways(
    chosen: list[str], rounds: int, requests: int, profile: cProfile.Profile | None
) -> dict[str, list[float]]:
    """Return the rounds of each path, in microseconds of CPU per request."""
    found = {}
    with tempfile.TemporaryDirectory() as name, gateway.emulator() as akoya:
        for key in chosen:
            way = WAYS[key]
            config = _config(Path(name) / key, akoya, way)
            found[key] = uvloop.run(measure(way, config, rounds, requests, profile))
    return found


def compare(other: Path, chosen: list[str], rounds: int, requests: int) -> Table:
    """Measure this tree and the one at `other` in turn, each round in a new process, and compare the smallest results.

    Each process imports `akoya_gateway` and `benchmarks` from its own tree.
    """
    best: dict[str, list[float]] = {key: [1e9, 1e9] for key in chosen}
    for turn in range(2 * rounds):
        options = [*chosen, "--json", "--rounds", "3", "--requests", str(requests)]
        tree = Path.cwd() if turn % 2 else other
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.inside", *options], cwd=tree, stdout=subprocess.PIPE, check=True
        )
        for key, numbers in json.loads(done.stdout).items():
            best[key][turn % 2] = min(best[key][turn % 2], *numbers)
    table = Table(
        "way", "other, us", "this, us", "this / other", title="CPU of one request, the smallest of all rounds"
    )
    for key, (old, new) in best.items():
        table.add_row(key, f"{old:.2f}", f"{new:.2f}", f"{new / old:.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", choices=[[], *WAYS], help="the paths to measure; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000, help="of each round")
    parser.add_argument("--profile", choices=WAYS, help="profile one path instead of timing all")
    parser.add_argument("--against", type=Path, help="another tree of this repository to compare with")
    parser.add_argument("--json", action="store_true", help="print the rounds of each path as JSON")
    options = parser.parse_args()
    chosen = [options.profile] if options.profile else options.ways or list(WAYS)
    if options.against is not None:
        Console().print(compare(options.against, chosen, options.rounds, options.requests))
        return
    profile = cProfile.Profile() if options.profile else None
    found = measure_ways(chosen, options.rounds, options.requests, profile)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(title="CPU of one request in the process, without the kernel", title_justify="left")
    for name in ("way", "what", "us", "rounds"):
        table.add_column(name, justify="right" if name in ("us", "rounds") else "left")
    for key, rounds in found.items():
        what, us = WAYS[key].what, f"{statistics.median(rounds):.1f}"
        table.add_row(key, what, us, f"{min(rounds):.1f}..{max(rounds):.1f}")
    if profile is not None:
        _show(profile, options.requests)
    Console().print(table)


def _show(profile: cProfile.Profile, count: int) -> None:
    """Print the time per request spent in each file. Profiling more than doubles the total, so compare the shares."""
    own: Counter[str] = Counter()
    for (file, _, function), (_, _, spent, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        own[function if file == "~" else "/".join(Path(file).parts[-3:])] += spent
    whole = sum(own.values())
    for name, spent in own.most_common(25):
        print(f"{spent / whole:6.1%}  {spent / count * 1e6:6.2f} us  {name}")


if __name__ == "__main__":
    main()
