"""Starts `akoya-gateway` and `uvicorn` commands by forking a process that has already imported the gateway.

Imports take four fifths of the CPU time that a gateway needs until it serves, and the tests start hundreds of gateways.
In all other respects a forked gateway is like an executed one: it has a session, a working directory, an environment,
signal handlers and standard streams of its own. What depends on the start of the interpreter needs `subprocess`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LARGEST = 1 << 20
"""Maximum size of a request in bytes."""
NUMBER = struct.Struct("i")


PROGRAMS = {"akoya_gateway": "akoya-gateway", "uvicorn": "uvicorn"}
"""The modules that can be run without executing `python -m`, and the names of their commands."""


class ForkedProcess:
    """`python -m MODULE ARGUMENTS`, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: int,
        errors: int | None = None,
    ) -> None:
        self.args = [PROGRAMS[module], *arguments]
        self.returncode: int | None = None
        request = json.dumps({"arguments": self.args, "env": dict(env), "cwd": str(cwd)}).encode()
        self._report, theirs = os.pipe()
        try:
            socket.send_fds(
                _server(env["PYTHONPATH"]), [request], [theirs, output, output if errors is None else errors]
            )
        finally:
            os.close(theirs)
        self.pid = self._read()

    def __del__(self) -> None:
        os.close(self._report)

    def _read(self) -> int:
        data = os.read(self._report, NUMBER.size)
        if not data:
            raise ChildProcessError("the process that forks gateways has exited")
        return int(NUMBER.unpack(data)[0])

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], 0)[0]:
            self.returncode = self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._read()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


@functools.cache
def _server(path: str) -> socket.socket:
    """Start the process that forks gateways, with this PYTHONPATH. It exits with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.support.prefork", str(theirs.fileno())]
    env = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, env=env, start_new_session=True)
    theirs.close()

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def serve(control: socket.socket) -> bool:
    """Fork on request, and report the exit codes. Return True in a forked process, False when nobody sends any more."""
    reports: dict[int, int] = {}
    woken, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup)
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, LARGEST)
        while reports and (exited := os.waitpid(-1, os.WNOHANG))[0]:
            report = reports.pop(exited[0])
            _tell(report, os.waitstatus_to_exitcode(exited[1]))
            os.close(report)
        if control.fileno() in ready:
            data, passed, _, _ = socket.recv_fds(control, LARGEST, 3)
            if not data:
                return False
            report, output, errors = passed
            pid = os.fork()
            if not pid:
                _become(json.loads(data), output, errors)
                return True
            os.close(output)
            os.close(errors)
            reports[pid] = report
            _tell(report, pid)


def _tell(report: int, number: int) -> None:
    try:
        os.write(report, NUMBER.pack(number))
    except BrokenPipeError:  # the test does not wait for it
        return


def _become(request: Mapping[str, object], output: int, errors: int) -> None:
    """Turn this forked process into one that looks newly executed."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, 1024)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(dict(request["env"]))  # type: ignore[call-overload]
    sys.argv = list(request["arguments"])  # type: ignore[call-overload]
    gc.enable()


async def _open_a_client() -> None:
    async with httpx.AsyncClient():
        pass


if __name__ == "__main__":
    gc.disable()
    import httpx
    import uvicorn

    import akoya_gateway.cli.run
    import akoya_gateway.entrypoints.sidecar
    import akoya_gateway.server.worker  # noqa: F401
    from akoya_gateway.cli import main
    from akoya_gateway.responses.languages import load_language
    from akoya_gateway.responses.page_templates import BUILT_IN, PageTemplates

    # A gateway does this before it serves, too: anyio and httpcore are imported late, and templates are compiled once.
    asyncio.run(_open_a_client())
    PageTemplates(BUILT_IN, load_language("en"), {})
    # The socket is not closed here: a forked process has another file under its number.
    if serve(socket.socket(fileno=os.dup(int(sys.argv[1])))):
        (uvicorn.main if sys.argv[0] == "uvicorn" else main)()
