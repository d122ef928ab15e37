#!/usr/bin/env python3
"""Runs a command with a time limit and kills every process that it started: `within.py SECONDS COMMAND ...`.

Exits with the status of the command. At the limit it prints the state and the stacks of each process and exits with
124. On Linux no process escapes: a process whose parent exits becomes a child of this process
(PR_SET_CHILD_SUBREAPER). If the parent of this process exits, all of them are killed (PR_SET_PDEATHSIG). Needs only
Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

INTERRUPT_LIMIT = 30
"""Seconds that the command has to exit after Ctrl-C."""
GRACE = 3.0
"""Seconds that processes left behind by the command have to exit by themselves."""
KILL_LIMIT = 10.0
"""Maximum seconds to spend on killing processes."""
LIMIT_REACHED = 124
"""Exit status at the time limit."""


class LimitReachedError(Exception):
    """Raised by the signal handler at the time limit."""


class TerminatedError(Exception):
    """Raised by the signal handler for SIGTERM and SIGHUP."""


def main() -> int:
    limit, command = float(sys.argv[1]), sys.argv[2:]
    prepare(limit)
    pid = os.posix_spawnp(command[0], command, os.environ)
    try:
        try:
            status = wait_for(pid)
        finally:
            for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        await_leftovers()
    except LimitReachedError:
        report(f"not done after {limit:g} s, and ended:")
        print_stacks()
        status = LIMIT_REACHED
    except TerminatedError:
        status = 128 + signal.SIGTERM
    finally:
        kill_all()
    return status


def prepare(limit: float) -> None:
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # `print_stacks` aborts processes. They must not write core files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    def limit_reached(*_: object) -> NoReturn:
        raise LimitReachedError

    def terminated(*_: object) -> NoReturn:
        raise TerminatedError

    def interrupted(*_: object) -> None:
        """Let the command shut down by itself: the terminal has sent Ctrl-C to it, too."""
        signal.alarm(INTERRUPT_LIMIT)

    signal.signal(signal.SIGALRM, limit_reached)
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGHUP, terminated)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)
    signal.setitimer(signal.ITIMER_REAL, limit)


def wait_for(command: int) -> int:
    """Return the exit status of the command. Reaps all other children that exit meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == command:
            signal.alarm(0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def descendants() -> list[int]:
    """Return the running descendants of this process, sorted by descending process ID."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found, more = set[int](), {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more}
        found |= more
    return sorted(found, reverse=True)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def await_leftovers() -> None:
    deadline = time.monotonic() + GRACE
    while descendants() and time.monotonic() < deadline:
        reap()
        time.sleep(0.05)
    if descendants():
        report("still running after the command, and ended:")


def report(what: str) -> None:
    """Print `what`, and for each process its state, the kernel function it waits in and its CPU time."""
    lines = [f"{sys.argv[0]}: {what}", "    pid   ppid state threads  cpu s  kernel function         command"]
    for pid in reversed(descendants()):
        folder = Path("/proc", str(pid))
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:160]
            wchan = (folder / "wchan").read_text()
            lines.append(f"{pid:7} {fields[1]:>6} {fields[0]:>5} {fields[17]:>7} {cpu:6.1f}  {wchan:22}  {command}")
    print("\n".join(lines), file=sys.stderr, flush=True)


def print_stacks() -> None:
    """Send SIGABRT to each process with a handler for it, so that it prints the stacks of its threads.

    pytest enables faulthandler, whose handler runs even if the interpreter is blocked. Children come first, because a
    pytest worker exits when its parent does.
    """
    for pid in descendants():
        with contextlib.suppress(OSError):
            caught = Path("/proc", str(pid), "status").read_text().partition("SigCgt:")[2].split()[0]
            if int(caught, 16) >> (signal.SIGABRT - 1) & 1:
                print(f"\n{sys.argv[0]}: threads of process {pid}:", file=sys.stderr, flush=True)
                os.kill(pid, signal.SIGABRT)
                time.sleep(0.2)


def kill_all() -> None:
    deadline = time.monotonic() + KILL_LIMIT
    while (left := descendants()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        reap()
    reap()


if __name__ == "__main__":
    sys.exit(main())
