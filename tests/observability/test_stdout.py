"""Tests of `StandardOutput`: gathered lines, slow readers, several processes and several threads."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from akoya_gateway.observability.stdout import (
    MAX_FILE_WRITE,
    MAX_GATHERED,
    MAX_SHARED_WRITE,
    MAX_WAITING,
    StandardOutput,
)
from tests.support.shutdown import done


class Recorded(StandardOutput):
    """Records what each system call wrote."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.calls: list[bytes] = []
        write = self._write

        def recorded(data: bytes) -> int:
            count = write(data)
            self.calls.append(data[:count])
            return count

        self._write = recorded


@pytest.fixture
def pipe_ends() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for each in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(each)


def test_gathered_lines_of_one_turn_of_the_loop_are_one_write_at_its_end(pipe_ends: tuple[int, int]) -> None:
    output = Recorded(pipe_ends[1])

    async def main() -> None:
        for turn in range(2):
            for number in range(3):
                output.gather((b"%d.%d\n" % (turn, number),))
            assert len(output.calls) == turn, "nothing is written before the turn ends"
            await asyncio.sleep(0)

    asyncio.run(main())
    assert output.calls == [b"0.0\n0.1\n0.2\n", b"1.0\n1.1\n1.2\n"]


def test_gathered_lines_are_written_before_a_later_event(pipe_ends: tuple[int, int]) -> None:
    output = Recorded(pipe_ends[1])

    async def main() -> None:
        output.gather((b"request\n",))
        output(b"event\n")
        output.gather((b"request 2\n",))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert b"".join(output.calls) == b"request\nevent\nrequest 2\n"


def test_gathered_lines_of_a_stopped_loop_are_written_by_flush(pipe_ends: tuple[int, int]) -> None:
    output = Recorded(pipe_ends[1])

    async def main(line: bytes) -> None:
        output.gather((line,))

    for line in (b"1\n", b"2\n"):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main(line))
        loop.close()
        output.flush()
        assert output.calls[-1:] == [line], "also with a second loop"


def test_many_gathered_lines_are_cut_between_lines_at_the_maximum_of_a_pipe(pipe_ends: tuple[int, int]) -> None:
    reader, writer = pipe_ends
    output = Recorded(writer)
    lines = [b"x" * (number % 900) + b"\n" for number in range(100)]
    lines[50] = b"y" * 2 * MAX_SHARED_WRITE + b"\n"
    _gather_all(output, lines)
    assert os.read(reader, 1 << 20) == b"".join(lines)
    assert all(call.endswith(b"\n") for call in output.calls)
    assert [call for call in output.calls if len(call) > MAX_SHARED_WRITE] == [lines[50]]
    # Two neighbours do not fit into one write.
    sizes = [len(call) for call in output.calls]
    assert all(a + b > MAX_SHARED_WRITE for a, b in itertools.pairwise(sizes))


def test_many_gathered_lines_are_fewer_writes_to_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        output = Recorded(file.fileno())
        lines = [b"x" * 299 + b"\n"] * 1000
        _gather_all(output, lines)
    assert (tmp_path / "log").read_bytes() == b"".join(lines)
    assert max(map(len, output.calls)) <= MAX_FILE_WRITE
    assert len(output.calls) == 5


def test_gathered_lines_are_written_during_a_long_turn(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        output = Recorded(file.fileno())

        async def main() -> None:
            for _ in range(10 * MAX_GATHERED):
                output.gather((b"x\n",))
                assert len(output._parts) <= MAX_GATHERED

        asyncio.run(main())
    assert (tmp_path / "log").read_bytes() == b"x\n" * 10 * MAX_GATHERED


def _gather_all(output: StandardOutput, lines: list[bytes]) -> None:
    """Gather each line in two parts, in one turn of the loop."""

    async def main() -> None:
        for line in lines:
            output.gather((line[:3], line[3:]))
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("blocking", [True, False])
def test_reader_that_went_away_does_not_stop_the_writer(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    out = StandardOutput(writer)
    out(b"one\n")
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)
    out(b"two\n")
    assert out.lost == 1
    os.close(writer)


def pipe() -> tuple[int, int]:
    return os.pipe()


def journal() -> tuple[int, int]:
    """Return a socket pair, because systemd's journal stream is a socket."""
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize("make", [pipe, journal])
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("gathered", [True, False])
def test_reader_that_is_stuck_does_not_stop_the_writer(
    make: Callable[[], tuple[int, int]], blocking: bool, gathered: bool
) -> None:
    reader, writer = make()
    os.set_blocking(writer, blocking)
    out = StandardOutput(writer)
    line = b"x" * 999 + b"\n"

    async def gather() -> None:
        for _ in range(1000):
            out.gather((line,))
            await asyncio.sleep(0)

    def write() -> None:
        for _ in range(1000):
            out(line)

    done(
        lambda: asyncio.run(gather()) if gathered else write(),
        "the lines are dropped without waiting a second for each",
    )
    assert out.lost
    assert os.get_blocking(writer) is blocking, "the file description is shared, so its blocking mode must not change"
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        read = 0
        while data := os.read(reader, 1 << 20):
            assert data.endswith(b"\n")
            read += data.count(b"\n")
    assert read + out.lost == 1000
    out(b"it reads again\n")
    assert os.read(reader, 100) == b"it reads again\n"
    os.close(reader)
    os.close(writer)


def test_lines_of_several_processes_do_not_mix() -> None:
    program = (
        "import os\n"
        "from akoya_gateway.config.model import Logging\n"
        "from akoya_gateway.observability.logs import open_log\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "log = open_log(Logging())\n"
        "for n in range(200): log.info('e', pid=os.getpid(), text='x' * 300)\n"
        "try:\n"
        "    while True: os.wait()\n"
        "except ChildProcessError: pass\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60).stdout
    read: list[dict[str, object]] = [json.loads(line) for line in out.splitlines()]
    assert len(read) == 800
    assert len({each["pid"] for each in read}) == 4


def test_gathered_lines_of_several_processes_do_not_mix() -> None:
    """Without a lock between processes: a pipe takes each write as a whole, and each write is whole lines."""
    program = (
        "import asyncio, os\n"
        "from akoya_gateway.observability.stdout import StandardOutput\n"
        "out = StandardOutput()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "async def main():\n"
        "    for turn in range(40):\n"
        "        for n in range(50): out.gather((b'%d %d ' % (os.getpid(), 50 * turn + n), b'x' * (n * 7 % 300), b' end\\n'))\n"
        "        await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
        "assert not out.lost\n"
        "try:\n"
        "    while True: os.wait()\n"
        "except ChildProcessError: pass\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60).stdout
    numbers: dict[bytes, list[int]] = {}
    for line in out.splitlines():
        pid, number, *_, end = line.split()
        assert end == b"end"
        numbers.setdefault(pid, []).append(int(number))
    assert list(numbers.values()) == [list(range(2000))] * 4


def test_truncated_line_does_not_take_in_the_next_one() -> None:
    """A line that is longer than one write may be cut off, when the reader stops in the middle of it."""
    reader, writer = os.pipe()
    out = StandardOutput(writer)
    out._write_timeout = 0.0
    capacity = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    out(b"x" * 2 * capacity + b"\n")
    out(b"dropped\n")
    assert out.lost == 2
    assert os.read(reader, 1 << 20) == b"x" * capacity
    out(b"next\n")
    out(b"last\n")
    assert os.read(reader, 1 << 20) == b"\nnext\nlast\n"
    os.close(reader)
    os.close(writer)


def test_line_of_another_thread_is_written_by_the_thread_that_is_writing(pipe_ends: tuple[int, int]) -> None:
    """So no thread waits for another one that waits for the reader, and the order stays."""
    reader, writer = pipe_ends
    out = StandardOutput(writer)
    entered, leave = threading.Event(), threading.Event()
    write = out._write

    def slow(data: bytes) -> int:
        entered.set()
        assert leave.wait(60)
        return write(data)

    out._write = slow
    thread = threading.Thread(target=lambda: out(b"1\n"))
    thread.start()
    assert entered.wait(60)
    out(b"2\n")
    out(b"3\n")
    leave.set()
    thread.join(60)
    assert os.read(reader, 100) == b"1\n2\n3\n"


@pytest.mark.parametrize("parts", [1, 3])
def test_lines_that_wait_for_a_blocked_write_of_another_thread_are_bounded(
    pipe_ends: tuple[int, int], parts: int
) -> None:
    """A write to a stopped terminal blocks its thread for any time, while the event loop continues."""
    out = StandardOutput(pipe_ends[1])
    entered, leave = threading.Event(), threading.Event()
    written: list[bytes] = []

    def blocked(data: bytes) -> int:
        entered.set()
        assert leave.wait(60)
        written.append(bytes(data))
        return len(data)

    out._write = blocked
    thread = threading.Thread(target=lambda: out(b"first\n"))
    thread.start()
    assert entered.wait(60)
    room = -(-MAX_WAITING // parts)

    async def main() -> None:
        for number in range(room + 10):
            if parts == 1:
                out(b"%d\n" % number)
            else:
                out.gather((b"%d" % number, b" ", b"\n"))

    asyncio.run(main())
    leave.set()
    thread.join(60)
    lines = b"".join(written).splitlines()
    assert (len(lines), lines[-1].rstrip(), out.lost) == (1 + room, b"%d" % (room - 1), 10)


def test_line_of_a_finalizer_in_the_middle_of_a_write_is_written_after_it(pipe_ends: tuple[int, int]) -> None:
    reader, writer = pipe_ends
    out = StandardOutput(writer)
    write = out._write

    def interrupted(data: bytes) -> int:
        out._write = write
        out(b"from the finalizer\n")
        return write(data)

    out._write = interrupted
    out(b"line\n")
    assert os.read(reader, 100) == b"line\nfrom the finalizer\n"
