"""Writes log lines to standard output, without blocking requests for long."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from functools import partial

WRITE_TIMEOUT = 1.0
"""Seconds to wait for a reader that is behind."""
MAX_SHARED_WRITE = 4096
"""Maximum bytes of several lines in one write to a pipe, a socket or a terminal.

PIPE_BUF on Linux: a pipe takes a write of this size as a whole or not at all, so the lines of several workers do not
mix. A longer line is written by itself.
"""
MAX_FILE_WRITE = 1 << 16
"""Maximum bytes of several lines in one write to a file, which takes a write of any size as a whole."""
MAX_GATHERED = 4096
"""If this many parts are gathered, they are written before the turn of the event loop ends, to bound memory."""
MAX_WAITING = 65_536
"""Maximum number of parts that wait for another thread, whose write blocks (a stopped terminal)."""

Put = Callable[[bytes], int]
"""Writes as many bytes as there is room for. Raises BlockingIOError if there is none."""


class StandardOutput:
    """Writes log lines in the order in which they were passed to it, so that lines of several processes do not mix.

    `output(line)` writes a line at once, after all gathered ones. `output.gather(parts)` writes one at the end of this
    turn of the event loop, with the other gathered lines: one system call for many requests instead of one for each. A
    process that is killed loses the gathered lines of one turn. The parts of all these lines are joined only then,
    because building each line by itself takes longer.

    If the reader is gone or does not read for `WRITE_TIMEOUT` seconds, lines are dropped and requests continue. `lost`
    counts dropped lines.

    Thread-safe, except `gather`. A call that finds another thread writing returns and leaves its line to that thread.
    So does a call in the middle of a write, from a finalizer that the garbage collector runs.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._write, self._max_bytes = _nonblocking_writer(fd)
        self._write_timeout = WRITE_TIMEOUT
        self._parts: list[bytes] = []
        """Lines that have not been written, in parts. Always whole lines, because all parts of one are added at once.

        Never replaced, because another thread may be about to append to it.
        """
        self._lock = threading.Lock()
        """Held by the thread that writes."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._truncated = False
        """Whether the output ends within a line, the rest of which was dropped."""
        self.lost = 0

    def __call__(self, line: bytes) -> None:
        """Write a line, which includes its newline, after all gathered lines."""
        if self._has_room():
            self._parts.append(line)
        self.flush()

    def gather(self, parts: tuple[bytes, ...]) -> None:
        """Write a line at the end of this turn of the event loop. Must be called in the thread of the running loop.

        Args:
            parts: the line, including its newline.
        """
        if len(self._parts) < MAX_GATHERED or self._has_room():
            self._parts += parts
        if not self._scheduled:
            self._scheduled = True
            loop = self._loop
            if loop is None or not loop.is_running():
                # Not each time, because Python 3.11 makes a system call to find the running loop.
                loop = self._loop = asyncio.get_running_loop()
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the gathered lines."""
        self._scheduled = False
        # Check again after releasing the lock: a call that could not acquire it has left its line behind.
        while self._parts and self._lock.acquire(False):
            try:
                while self._parts:
                    self._write_lines()
            finally:
                self._lock.release()

    def _has_room(self) -> bool:
        """Write the gathered lines if there are many. Count a lost line and return False if too many are left."""
        if len(self._parts) >= MAX_GATHERED:
            self.flush()
            if len(self._parts) >= MAX_WAITING:
                self.lost += 1
                return False
        return True

    def _write_lines(self) -> None:
        count = len(self._parts)
        data = b"".join(self._parts[:count])
        del self._parts[:count]
        start = 0
        while len(data) - start > self._max_bytes:
            # End after the last line that fits, or after the first line if it is too long.
            end = data.rfind(b"\n", start, start + self._max_bytes) + 1 or data.find(b"\n", start) + 1 or len(data)
            self._write_or_drop(data[start:end])
            start = end
        self._write_or_drop(data[start:])

    def _write_or_drop(self, lines: bytes) -> None:
        # After a truncated line, so that the first line is not taken for the rest of it.
        prefix = b"\n" if self._truncated else b""
        rest = data = prefix + lines
        while rest:
            try:
                rest = rest[self._write(rest) :]
                self._write_timeout = WRITE_TIMEOUT
            except BlockingIOError:
                if not select.select([], [self._fd], [], self._write_timeout)[1]:
                    # Wait only once: a second for each line would be as bad as blocking until the reader reads.
                    self._write_timeout = 0.0
                    break
            except OSError:
                break
        written = len(data) - len(rest)
        if written:
            self._truncated = data[written - 1 : written] != b"\n"
        if rest:
            self.lost += data.count(b"\n", max(written, len(prefix)))


def _nonblocking_writer(fd: int) -> tuple[Put, int]:
    """Return a function that writes to `fd`, and the maximum bytes of several lines in one write.

    The function does not block if `fd` is a pipe or a socket.

    O_NONBLOCK cannot be set on `fd`: the flag belongs to the open file description, which standard error and the shell
    that started the process may share. Files never block. A stopped terminal blocks, which its user intended.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            # Reopening the pipe creates an open file description with its own flags (Linux).
            put = partial(os.write, os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK))
            return put, MAX_SHARED_WRITE
        if stat.S_ISSOCK(mode):
            journal = socket.socket(fileno=os.dup(fd))
            return lambda data: journal.send(data, socket.MSG_DONTWAIT), MAX_SHARED_WRITE
        if stat.S_ISREG(mode):
            return partial(os.write, fd), MAX_FILE_WRITE
    except OSError:
        pass
    return partial(os.write, fd), MAX_SHARED_WRITE
