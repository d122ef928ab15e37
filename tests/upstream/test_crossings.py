"""Tests under load, with real servers that send a body where none is allowed: no response reaches another request.

Half of the clients keep their connections open and use the fast lane. The other half close them and use the general
path. `AKOYA_SOAK=full` runs a minute against each server, including older gunicorn versions, whose 204 and 304
responses have a body.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import wait_for_port
from tests.support.shutdown import ended
from tests.support.sidecar import Running
from tests.upstream.sloppy import RAW_KINDS, WSGI_KINDS

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60.0 if os.environ.get("AKOYA_SOAK") == "full" else 2.0
CLIENTS = 12
OLDER = ("21.2.0", "26.0.0", "27.0.1")


@contextmanager
def serving(server: str, folder: Path, packages: Path | None = None) -> Iterator[int]:
    """Run the sloppy app under a server and yield its port. `packages` is the path of another server version."""
    port = free_port()
    command = [sys.executable, "-m", "tests.upstream.sloppy", server, str(port)]
    if server == "gunicorn":
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--worker-class",
            "gthread",
            "--threads",
            "20",
            "--bind",
            f"127.0.0.1:{port}",
        ]
        command.append("tests.upstream.sloppy:application")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(each) for each in (packages, ROOT) if each)}
    log = folder / "app.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)
    try:
        wait_for_port(port, process, log)
        yield port
    finally:
        ended(process)


class Clients:
    """Attackers request stray bytes, victims request valid responses. Both check that the response is theirs."""

    def __init__(self, port: int, kinds: Sequence[str], seconds: float) -> None:
        self.port = port
        self.kinds = kinds
        self._until = time.monotonic() + seconds
        self._enough = 20 * seconds
        self.seen: Counter[str] = Counter()
        self.wrong: list[bytes] = []

    async def run(self) -> None:
        attackers = [self.client(number, number % 2 == 0, self.kinds) for number in range(CLIENTS)]
        victims = [self.client(number, number % 2 == 0, ("ok",)) for number in range(CLIENTS, 2 * CLIENTS)]
        await asyncio.gather(*attackers, *victims)

    def goes_on(self) -> bool:
        """Return whether the time is not over, or a busy machine has served too few requests to prove anything."""
        return time.monotonic() < self._until or self.seen["ok 200"] <= self._enough

    async def client(self, number: int, keep: bool, kinds: Sequence[str]) -> None:
        turn = 0
        while self.goes_on():
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            try:
                while self.goes_on():
                    turn += 1
                    kind = kinds[(number + turn) % len(kinds)]
                    if not await self.exchange(reader, writer, kind, f"/public/{kind}/{number}-{turn}", keep):
                        break
            except (OSError, asyncio.IncompleteReadError):
                self.seen[f"{kind} cut"] += 1
            finally:
                writer.close()

    async def exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, path: str, keep: bool
    ) -> bool:
        """Send a request and check the response. Return whether the connection can be reused."""
        verb = "HEAD" if kind == "head" else "GET"
        close = "" if keep else "Connection: close\r\n"
        writer.write(f"{verb} {path} HTTP/1.1\r\nHost: a\r\n{close}\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        status = int(head[9:12])
        fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n"))}
        length = 0 if verb == "HEAD" or status in (204, 304) else int(fields.get(b"content-length", b"0"))
        body = await asyncio.wait_for(reader.readexactly(length), 60)
        own = fields.get(b"x-path") == path.encode() and (kind != "ok" or body == b"for " + path.encode())
        if own:
            self.seen[f"{kind} {status}"] += 1
        elif status >= 500:
            self.seen[f"{kind} failed {status}"] += 1
        else:
            self.seen[f"{kind} CROSSED"] += 1
            self.wrong.append(head + body[:100])
        return keep and fields.get(b"connection") != b"close"


def crossings(
    folder: Path,
    server: str,
    kinds: Sequence[str],
    *options: str,
    packages: Path | None = None,
    seconds: float = SECONDS,
) -> Counter[str]:
    with (
        serving(server, folder, packages) as app,
        Running(
            folder,
            *options,
            changes={"upstream": {"url": f"http://127.0.0.1:{app}", "pool": 20}, "logging": {"access": False}},
        ) as run,
    ):
        clients = Clients(run.port, kinds, seconds)
        asyncio.run(clients.run())
    print(
        f"{server} {packages.name if packages else ''} {' '.join(options)}, {seconds:g} s:",
        dict(sorted(clients.seen.items())),
    )
    assert not clients.wrong, clients.wrong[0]
    return clients.seen


@pytest.mark.parametrize("server", ["gunicorn", "cheroot"])
def test_wsgi_server_that_sends_a_body_where_none_belongs_crosses_no_responses(tmp_path: Path, server: str) -> None:
    seen = crossings(tmp_path, server, WSGI_KINDS)
    assert {f"{kind} {kind[-3:]}" for kind in WSGI_KINDS if kind != "head"} <= seen.keys()
    assert seen["head 200"]


@pytest.mark.parametrize("options", [(), ("--no-fast-lane",)], ids=["lane", "asgi"])
def test_app_whose_stray_bytes_come_before_the_connection_is_handed_out_crosses_no_responses(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    seen = crossings(tmp_path, "raw", RAW_KINDS, *options)
    assert {f"{kind} {kind[-3:] if kind[-1].isdigit() else 200}" for kind in RAW_KINDS} <= seen.keys()


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.skipif(SECONDS < 60, reason="installs other versions from the package index and takes a minute each")
@pytest.mark.parametrize("version", OLDER)
def test_gunicorn_of_this_version_crosses_no_responses(tmp_path: Path, version: str) -> None:
    packages = tmp_path / version
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), f"gunicorn=={version}"]
    subprocess.run(install, check=True, timeout=120)
    crossings(tmp_path, "gunicorn", WSGI_KINDS, packages=packages)
