"""Differential fuzzing of all entry points: `python -m tests.fuzz.wire.run [--minutes 20] [--seed N]`.

Prints each finding with the bytes that caused it. Exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.wire.rig import ENTRYPOINTS, OURS, Rig
from tests.fuzz.wire.scripts import Maker, Script

AT_ONCE = 12
QUIET = 0.25
"""Seconds of silence after which a client disconnects."""
BATCH = 400
"""Number of scripts between two checks of logs and open streams."""
MOST_FINDINGS = 20

_VOLATILE = [
    (rb"created=\d+", b"created="),
    (rb"expires=\d+", b"expires="),
    (rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"<last access>"),
    (rb'nonce="[^"]+"', b"nonce="),
    (rb"signature: akoya=:[^:]+:", b"signature: akoya="),
    (rb"\r\ndate: [^\r]+", b"\r\ndate: "),
    (rb"(?i)x-request-id: [0-9a-f]+", b"x-request-id:"),
    (rb'"request_id":"[0-9a-f]+"', b'"request_id":'),
    (rb"(?i)\r\nset-cookie: [^\r]+", b"\r\nset-cookie: "),
    (rb"(state|nonce|code_challenge)=[^&\r\"]+", rb"\1="),
    # Without a Host (HTTP/1.0) the upstream receives its own address.
    (rb"127\.0\.0\.1:\d+", b"<upstream>"),
    (rb"x-forwarded-port: \d+", b"x-forwarded-port: "),
    (rb"(?i)content-length: \d+", b"content-length:"),
    (rb"\r\n[0-9a-f]+\r\n", b"\r\n"),
]  # fmt: skip


def alike(one: bytes, other: bytes, script: Script) -> bool:
    """Return True if two responses are equivalent.

    A handshake is refused while a response is in progress, which depends on timing. So for scripts with a handshake
    one response may be a prefix of the other.
    """
    if b"sec-websocket-key" in script.data.lower():
        return one.startswith(other) or other.startswith(one)
    return one == other


@dataclass
class Totals:
    connections: int = 0
    bytes_sent: int = 0
    compared: int = 0
    retried: int = 0


def settled(data: bytes) -> bytes:
    """Return the part of a response that two entry points must have in common.

    A final error response of the server is left out: whether it is written depends on whether the previous response
    was complete.
    """
    last = data.rfind(b"HTTP/1.1 ")
    if last >= 0 and b'"request_id"' not in data[last:] and b"urn:akoya-gateway:problem:" in data[last:]:
        data = data[:last]
    # WebSocket data is not compared: only one of the implementations adds a reason to its close frame.
    data = re.sub(rb"(?s)(HTTP/1\.1 101 .*?\r\n\r\n).*", rb"\1", data)
    for pattern, replacement in _VOLATILE:
        data = re.sub(pattern, replacement, data)
    return data


class _Client(asyncio.Protocol):
    """Keeps what it has received, even if the connection is reset."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.news = asyncio.Event()
        self.over = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self.news.set()


async def play(port: int, script: Script, quiet: float) -> bytes:
    """Send a script and return the received bytes."""
    transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    for piece in script.pieces:
        transport.write(piece)
        await asyncio.sleep(script.pause)
    with contextlib.suppress(TimeoutError):
        while script.leaves == "reads" and not client.over:
            client.news.clear()
            await asyncio.wait_for(client.news.wait(), quiet)
    if script.leaves == "resets":
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return bytes(client.received)


class Fuzz:
    """Sends scripts to all entry points of a rig and appends to its `findings`."""

    def __init__(self, rig: Rig, seed: int) -> None:
        assert rig.book is not None
        self.rig = rig
        self.book = rig.book
        self.maker = Maker(seed, rig.book.people)
        self.totals = Totals()

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.rig.findings) < MOST_FINDINGS:
            await self._batch(end)
            await self._nothing_is_left()
            self.rig.findings += self.rig.errors()

    async def _batch(self, end: float) -> None:
        async def worker() -> None:
            for _ in range(BATCH // AT_ONCE):
                if time.monotonic() > end:
                    return
                await self._one(self.maker.script())

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    async def _one(self, script: Script) -> None:
        self.book.scripts[script.mark] = script
        received = {}
        for entrypoint in self.rig.entrypoints:
            received[entrypoint] = await play(self.rig.port(entrypoint), script, QUIET)
            self.totals.connections += 1
            self.totals.bytes_sent += len(script.data)
            for wrong in self.book.of_response(script, received[entrypoint]):
                self._found(entrypoint, wrong, script, received[entrypoint])
        if script.leaves == "reads":
            await self._compare(script, received)

    async def _compare(self, script: Script, received: dict[str, bytes]) -> None:
        """Compare the two entry points on the gateway's own server.

        A response can depend on timing: a request may be refused (403) before or after the rest of its malformed body is
        parsed (400). So the script is repeated, and the two must have one outcome in common.
        """
        self.totals.compared += 1
        one, other = OURS
        outcomes = {entrypoint: [settled(received[entrypoint])] for entrypoint in OURS}
        for attempt in range(5):
            if any(alike(a, b, script) for a in outcomes[one] for b in outcomes[other]):
                return
            self.totals.retried += 1
            for entrypoint in OURS:
                received[entrypoint] = await play(self.rig.port(entrypoint), script, 0.5 * (attempt + 1))
                outcomes[entrypoint].append(settled(received[entrypoint]))
        self._found("lane, general", "differ", script, b"\n----\n".join(outcomes[one] + outcomes[other]))

    async def _nothing_is_left(self) -> None:
        """Check that no app has an open stream after all clients have disconnected."""
        # A WebSocket may wait 10 s for the reply to its close frame.
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            left = {entrypoint: self.rig.apps.open_streams[entrypoint] for entrypoint in OURS}
            if not any(left.values()):
                return
            await asyncio.sleep(0.05)
        self.rig.findings.append(json.dumps({"wrong": "open streams of disconnected clients", "left": left}))

    def _found(self, entrypoint: str, wrong: str, script: Script, received: bytes) -> None:
        finding = {
            "entrypoint": entrypoint,
            "wrong": wrong,
            "mark": script.mark.decode(),
            "pause": script.pause,
            "sent": [piece[:3000].decode("latin-1") for piece in script.pieces],
            "received": received[:6000].decode("latin-1"),
        }
        self.rig.findings.append(json.dumps(finding))


def fuzz(folder: Path, seconds: float, seed: int, entrypoints: tuple[str, ...] = ENTRYPOINTS) -> tuple[Rig, Totals]:
    """Fuzz for the given time and return the rig, with its findings and request counts, and the totals."""
    with Rig(folder, entrypoints) as rig:
        running = Fuzz(rig, seed)
        asyncio.run(running.run(seconds))
    return rig, running.totals


def main() -> int:
    # asyncio warns about each write to a connection that the gateway has closed.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="akoya-fuzz-") as folder:
        rig, totals = fuzz(Path(folder), options.minutes * 60, options.seed)
    print(
        f"seed {options.seed}: {totals.connections} connections to {len(rig.entrypoints)} entry points {rig.entrypoints},",
        end=" ",
    )
    print(f"{totals.bytes_sent} bytes; requests that apps got: {rig.requests};", end=" ")
    print(f"compared: {totals.compared}, again for timing: {totals.retried}; findings: {len(rig.findings)}")
    for finding in rig.findings:
        print(finding)
    return 1 if rig.findings else 0


if __name__ == "__main__":
    sys.exit(main())
