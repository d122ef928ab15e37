"""Bounded shutdown of the servers, processes and threads that tests start.

A test that has failed or timed out must not wait forever for the cause of its failure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, AnyStr, Protocol

WITHIN = 30.0
"""Default timeout in seconds."""


class Serving(Protocol):
    """A server of `socketserver`, or a threaded server of `websockets`.

    Their `shutdown` waits without a timeout: the first for the running handler, the second for all handlers.
    """

    def serve_forever(self) -> None: ...

    def shutdown(self) -> None: ...


def done(call: Callable[[], object], what: str, within: float = WITHIN) -> None:
    """Run `call` in a thread and fail if it does not return within the timeout. The thread is then abandoned."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(within)
    assert not thread.is_alive(), f"waited {within:g} s in vain until {what}"


@contextlib.contextmanager
def served(server: Serving, **options: Any) -> Iterator[None]:
    """Run the server in a thread. `options` are passed to `serve_forever`."""
    thread = threading.Thread(target=server.serve_forever, kwargs=options, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done(server.shutdown, "the server and its handlers have stopped")


def ended(process: subprocess.Popen[Any], within: float = 60.0) -> int:
    """Send SIGTERM and return the exit code. Kill the process and fail if it does not exit in time."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{process.args!r} did not end within {within:g} s of SIGTERM") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(WITHIN)


@contextlib.contextmanager
def ending(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Replace `with Popen(...)`, which waits without a timeout for a process that was not terminated."""
    try:
        yield process
    finally:
        ended(process)


@contextlib.contextmanager
def unless_done(otherwise: Callable[[], object], within: float = WITHIN) -> Iterator[None]:
    """Call `otherwise` in another thread if the block takes longer than `within` seconds."""
    timer = threading.Timer(within, otherwise)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def children(of: int | None = None) -> set[int]:
    """Return all descendants of a process (this one by default). Empty without /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, more = set[int](), {of or os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more}
        found |= more
    return found


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
