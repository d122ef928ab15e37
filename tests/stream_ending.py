"""The ends of what tests start. Each comes within a time: a test that has failed, or was stopped by its alarm, must not
wait for ever for what made it fail.
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

WITHIN = 10.0
"""Seconds."""


class Serving(Protocol):
    """`socketserver`'s servers, and the threaded ones of `websockets`. `shutdown` of either waits without end: for the
    handler that is at work, and for all of them."""

    def serve_forever(self) -> None: ...

    def shutdown(self) -> None: ...


def done(call: Callable[[], object], what: str, within: float = WITHIN) -> None:
    """Call what may not come back. If it does not, it is left behind."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(within)
    assert not thread.is_alive(), f"in vain waited {within:g} s until {what}"


@contextlib.contextmanager
def served(server: Serving, **options: Any) -> Iterator[None]:
    """In a thread of its own. `options`: of `serve_forever`."""
    thread = threading.Thread(target=server.serve_forever, kwargs=options, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done(server.shutdown, "the server has stopped, and what it has to do with its clients")


def ended(process: subprocess.Popen[Any], within: float = 20.0) -> int:
    """Its exit code after SIGTERM. One that does not end is killed."""
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
    """As `with Popen(…)`, which waits without end for a process that nobody has told to end."""
    try:
        yield process
    finally:
        ended(process)


@contextlib.contextmanager
def unless_done(otherwise: Callable[[], object], within: float = WITHIN) -> Iterator[None]:
    """`otherwise` is called, on a thread, when what is done here takes longer."""
    timer = threading.Timer(within, otherwise)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def children(of: int | None = None) -> set[int]:
    """Processes that one has started (ours, unless another is named), theirs included. Empty where there is no /proc."""
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
