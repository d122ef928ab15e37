"""Measures the start time and memory of the sidecar, and that streaming does not increase its memory.

    python -m benchmarks.footprint
    python -m benchmarks.footprint --connections 500 --streamed 64    a shorter run

Measures the time from exec to the first proxied response, the resident memory of idle workers (one, and two of them),
the memory with many idle keep-alive connections, and the growth of resident memory while gigabytes are streamed to a
slow reader on either side. The gateway runs with the packages and the bytecode of an installation
(`benchmarks.rig.installation`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.rig.load import wrk
from benchmarks.rig.machine import machine
from benchmarks.rig.origin import SMALL
from benchmarks.rig.processes import resident_bytes, tree, unique_bytes
from benchmarks.rig.systems import LOAD_CORE, SYSTEMS, Rig, Running

MEGABYTE = 1e6


def main() -> None:
    chosen = _arguments()
    facts = machine()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="akoya-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Rig(folder) as rig:
            _start(rig, -1)  # compiles and caches bytecode, as an installation does
            found["start_seconds"] = [_start(rig, number) for number in range(chosen.starts)]
            running = rig.sidecar(SYSTEMS["sidecar"], label="idle")
            found["idle_bytes"] = _warm(rig, running)
            found["idle_bytes_of_two_workers"] = _two_workers(rig)
            found["connections"] = asyncio.run(_connections(running, chosen.connections))
            streaming = rig.sidecar(SYSTEMS["sidecar"], label="streams", upstream=rig.origin.streams_url)
            _warm(rig, streaming)
            for kind, work in (("slow_client", _download), ("slow_upstream", _upload)):
                found[kind] = asyncio.run(_growth(streaming, work(streaming, chosen.streamed << 20)))
    _show(found)
    document = {"machine": facts, "footprint": found}
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written: {chosen.json}")


def _start(rig: Rig, number: int) -> float:
    """Return the seconds from exec to the first proxied response, to a request that needs no session."""
    began = time.perf_counter()
    running = rig.sidecar(SYSTEMS["bare-asgi"], label=f"start-{number}")
    asyncio.run(_first_response(running.server.port))
    taken = time.perf_counter() - began
    running.server.__exit__()
    return taken


async def _first_response(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /public/x HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    response = await reader.read()
    writer.close()
    if not response.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"no first response: {response[:200]!r}")


def _warm(rig: Rig, running: Running) -> int:
    """Return the resident bytes after one second of load and one second of idling."""
    wrk(rig.folder, running.server.url + SMALL, running.headers, seconds=1, connections=32, cores=LOAD_CORE)
    time.sleep(1)
    return resident_bytes(running.server.pid)


def _two_workers(rig: Rig) -> dict[str, list[int]]:
    running = rig.sidecar(SYSTEMS["sidecar"], "--workers", "2", label="two", cores=None)
    _warm(rig, running)
    family = tree(running.server.pid)
    return {"resident": [resident_bytes(pid) for pid in family], "share": [unique_bytes(pid) for pid in family]}


async def _connections(running: Running, count: int) -> dict[str, float]:
    """Open `count` connections, send a request on each, keep them open, and send another request on each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1000)), hard))
    place = urlsplit(running.server.url)
    request = f"GET {SMALL} HTTP/1.1\r\nhost: {place.netloc}\r\ncookie: {running.headers['cookie']}\r\n\r\n".encode()
    before = resident_bytes(running.server.pid)
    began = time.monotonic()
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    while len(streams) < count:
        batch = min(200, count - len(streams))
        streams += await asyncio.gather(*(asyncio.open_connection(place.hostname, place.port) for _ in range(batch)))
    opened = time.monotonic() - began
    served = [await _ask_all(streams, request), await _ask_all(streams, request)]
    after = resident_bytes(running.server.pid)
    for _, writer in streams:
        writer.close()
    return {
        "count": count, "served_first": served[0], "served_again": served[1], "opened_seconds": opened,
        "grown_bytes": after - before, "bytes_each": (after - before) / count,
    }  # fmt: skip


async def _ask_all(streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]], request: bytes) -> int:
    limit = asyncio.Semaphore(64)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with limit:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                writer.write(request)
                response = await asyncio.wait_for(reader.readuntil(b"hello, world"), 20)
                return response.startswith(b"HTTP/1.1 200")
            return False

    return sum(await asyncio.gather(*(one(*pair) for pair in streams)))


async def _growth(running: Running, work: Any) -> dict[str, float]:
    """Sample resident bytes every 0.1 s while `work` runs. Returns the values before, the maximum and after."""
    before = most = resident_bytes(running.server.pid)
    began = time.monotonic()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=0.1)
        most = max(most, resident_bytes(running.server.pid))
    passed = await task
    return {
        "before": before, "most": most, "after": resident_bytes(running.server.pid), "passed_bytes": passed,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


async def _download(running: Running, size: int) -> int:
    """Download with a slow client that reads 64 KB at a time, about 100 MB per second."""
    reader, writer = await _open(running, "GET /bench/gigabyte HTTP/1.1")
    await reader.readuntil(b"\r\n\r\n")
    taken = 0
    began = time.monotonic()
    while taken < size and (data := await reader.read(65536)):
        taken += len(data)
        await asyncio.sleep(max(0.0, began + taken / 100e6 - time.monotonic()))
    writer.close()
    return taken


async def _upload(running: Running, size: int) -> int:
    """Upload as fast as possible to an upstream that pauses after each read."""
    reader, writer = await _open(running, "PUT /bench/sink HTTP/1.1", f"content-length: {size}\r\n")
    piece = bytes(65536)
    for _ in range(size // len(piece)):
        writer.write(piece)
        await writer.drain()
    response = await reader.readuntil(b"hello")
    writer.close()
    if not response.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the upload was not taken: {response[:200]!r}")
    return size


async def _open(running: Running, line: str, extra: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = urlsplit(running.server.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"{line}\r\nhost: {place.netloc}\r\ncookie: {running.headers['cookie']}\r\n{extra}\r\n"
    writer.write(head.encode())
    return reader, writer


def lines(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return the rows of the table: what was measured, the target, the result, and whether the target was reached."""
    start = statistics.median(found["start_seconds"])
    two = found["idle_bytes_of_two_workers"]
    worker = max(found["idle_bytes"], *two["resident"])
    many = found["connections"]
    rows = [
        ("start to first response", "< 1 s", f"{start:.2f} s", start < 1),
        ("resident memory of an idle worker", "< 80 MB", f"{worker / MEGABYTE:.0f} MB", worker < 80e6),
        (
            "idle keep-alive connections, all served again",
            f"{many['count']:,.0f}",
            f"{many['served_again']:,.0f}, {many['bytes_each'] / 1e3:.1f} KB each",
            many["served_again"] == many["count"],
        ),
    ]
    slow = (("slow_client", "a slow client downloads"), ("slow_upstream", "a slow upstream takes an upload"))
    for name, what in slow:
        one = found[name]
        grown = one["most"] - one["before"]
        size = one["passed_bytes"] / (1 << 30)
        text = f"{grown / MEGABYTE:.1f} MB over {size:.2f} GiB"
        rows.append((f"growth while {what}", "< 10 MB", text, grown < 10e6))
    return rows


def _show(found: dict[str, Any]) -> None:
    table = Table(title="Footprint of akoya-gateway run", title_justify="left")
    for name in ("what", "aim", "measured", ""):
        table.add_column(name)
    for what, aim, measured, reached in lines(found):
        table.add_row(what, aim, measured, "reached" if reached else "missed")
    Console(width=110).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000, help="idle keep-alive connections (10000)")
    parser.add_argument("--streamed", type=int, default=1024, metavar="MIB", help="streamed each way (1024)")
    parser.add_argument("--starts", type=int, default=5, help="starts that are timed (5)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/footprint.json"), metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
