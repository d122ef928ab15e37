"""Runs servers as child processes pinned to cores, measures their CPU and memory, and stops them afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

START_TIMEOUT = 30.0
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until `port` accepts connections. Raises RuntimeError if `process` exits, or after `START_TIMEOUT`."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.005)
    raise RuntimeError(f"nothing listens on port {port}")


class Server:
    """Context manager that runs a command listening on `port`. `cores` is as for taskset; None means all."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        *,
        cores: str | None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        pin = ["taskset", "-c", cores] if cores is not None else []
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.command = [*pin, *map(str, command)]
        self._environ = {**os.environ, **(environ or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environ,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        assert self._process is not None
        try:
            wait_for_port(self.port, self._process)
        except RuntimeError as error:
            raise RuntimeError(f"{self.name}: {error}: {self.tail()}") from None

    def tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        family = tree(process.pid)
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(5)


def tree(pid: int) -> list[int]:
    """Return the process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command name: state, ppid, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of the process and its living descendants."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = _stat(one)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def resident_bytes(pid: int) -> int:
    """Return the resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def unique_bytes(pid: int) -> int:
    """Return the proportional set size: shared pages are divided among the processes that share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")
