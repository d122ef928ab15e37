"""Writes log lines to standard output without blocking requests for long."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from functools import partial

WRITE_TIMEOUT = 1.0
"""Seconds to wait for a reader that is behind."""

Put = Callable[[memoryview], int]
"""Writes as many bytes as there is room for. Raises BlockingIOError if there is none."""


class StandardOutput:
    """Writes each line with one system call, so that the lines of several workers do not mix.

    If the reader is gone or does not read for `WRITE_TIMEOUT` seconds, the line is dropped and the request continues.
    `lost` counts dropped lines.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._write = _nonblocking_writer(fd)
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
                    # Wait only once: a second for each line would be as bad as blocking until the reader reads.
                    self._write_timeout = 0.0
                    self.lost += 1
                    return
            except OSError:
                self.lost += 1
                return


def _nonblocking_writer(fd: int) -> Put:
    """Return a function that writes to `fd` and does not block if it is a pipe or a socket.

    O_NONBLOCK cannot be set on `fd`: the flag belongs to the open file description, which standard error and the shell
    that started the process may share. Files never block. A stopped terminal blocks, which its user intended.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            # Reopening the pipe creates an open file description with its own flags (Linux).
            return partial(os.write, os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK))
        if stat.S_ISSOCK(mode):
            journal = socket.socket(fileno=os.dup(fd))
            return lambda data: journal.send(data, socket.MSG_DONTWAIT)
    except OSError:
        pass
    return partial(os.write, fd)


def no_colour() -> bool:
    """Return True if the user wants no colours: `NO_COLOR` is set (no-color.org), or the terminal is `dumb`."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
