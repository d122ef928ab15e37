"""Standard output as a place for lines that nobody has to wait for."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from functools import partial

WRITE_TIMEOUT = 1.0
"""Seconds in which a reader that is behind may catch up."""

Put = Callable[[memoryview], int]
"""Writes what there is room for, and raises BlockingIOError where there is none."""


class StandardOutput:
    """Writes each line with one system call, so that the lines of several workers do not mix.

    A reader that is gone or stuck for a second costs the line, never the request. `lost` counts such lines.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._write = _never_waiting(fd)
        self._write_timeout = WRITE_TIMEOUT
        self.lost = 0

    def __call__(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[self._write(rest) :]
                self._write_timeout = WRITE_TIMEOUT
            except BlockingIOError:
                if not select.select([], [self._fd], [], self._write_timeout)[1]:
                    # A second for every line would be as bad as to wait for the reader.
                    self._write_timeout = 0.0
                    self.lost += 1
                    return
            except OSError:
                self.lost += 1
                return


def _never_waiting(fd: int) -> Put:
    """As far as that can be had for us alone: the flag O_NONBLOCK would be everybody's who holds the same end, as do
    the shell that started us and standard error. Files are always ready, and who stops a terminal means it."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            # Opened anew, the pipe has flags of its own (Linux).
            return partial(os.write, os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK))
        if stat.S_ISSOCK(mode):
            journal = socket.socket(fileno=os.dup(fd))
            return lambda data: journal.send(data, socket.MSG_DONTWAIT)
    except OSError:
        pass
    return partial(os.write, fd)
