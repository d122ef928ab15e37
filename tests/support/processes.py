"""Starts and stops the servers that the tests talk to."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from akoya_gateway import Gateway, load_config
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.prefork import PROGRAMS, ForkedProcess
from tests.support.waiting import until

PYTHON = sys.executable
AS_INSTALLED = os.pathsep.join(filter(None, [f"{Path(__file__).parent}/as_installed", os.environ.get("PYTHONPATH")]))
"""PYTHONPATH of a gateway: without packages that only the tests install, and that others import if they are there."""
START_TIMEOUT = 60.0
Process = subprocess.Popen[bytes] | ForkedProcess
_READ_BY_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "TZ")
"""Prefixes of variables that have no effect on a process that was not executed with them."""


def wait_for_port(port: int, process: Process | None = None, log: Path | None = None) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            text = log.read_text(errors="replace") if log else ""
            raise AssertionError(f"the process ended with {process.returncode}:\n{text[-4000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}:\n{log.read_text(errors='replace')[-4000:] if log else ''}")


class QuickServer(uvicorn.Server):
    """A uvicorn server that stops at once and does not poll: idle servers of tests took 1 % of a processor each."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopping.wait()

    def stop(self) -> None:
        """Stop the server, which must have started, from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has failed
            self._loop.call_soon_threadsafe(self._stopping.set)


class AppServer:
    """An ASGI app under uvicorn in its own thread. `options` are those of `uvicorn.Config`."""

    def __init__(self, app: Any, *, port: int | None = None, **options: Any) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        defaults: dict[str, Any] = {"log_level": "error", "access_log": False}
        self._server = QuickServer(uvicorn.Config(app, **(defaults | options)))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def open_connections(self) -> int:
        return len(self._server.server_state.connections)

    def __enter__(self) -> AppServer:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._server.started:
            assert self._thread.is_alive(), "the app did not start"
            assert time.monotonic() < deadline, "the app does not start"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._thread.join(1)
        self._server.force_exit = True  # a response that never ends would keep it
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._listener])


class GatewayProcess:
    """`akoya-gateway run` with a configuration, as an operator would start it."""

    def __init__(self, folder: Path, config: Mapping[str, Any], environ: Mapping[str, str], *options: str) -> None:
        self.folder = folder
        self.config_path = folder / "gateway.yaml"
        self.config_path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        self.log = folder / f"gateway-{time.monotonic_ns()}.log"
        self.port = int(str(config["listen"]).rpartition(":")[2])
        self._environ = {**os.environ, "PYTHONPATH": AS_INSTALLED, **environ}
        self.prefork = not any(name.startswith(_READ_BY_THE_INTERPRETER) for name in environ)
        """Whether the process is forked from one that has imported the gateway, which is fast, instead of executed."""
        self._admin: Mapping[str, Any] | None = config.get("admin")
        self._options = options
        self.process: Process | None = None

    def command(self) -> list[str]:
        return [PYTHON, "-m", "akoya_gateway", "run", "--config", str(self.config_path), *self._options]

    def start(self) -> Self:
        command = self.command()
        with self.log.open("ab") as out:
            module, *arguments = command[2:]
            if self.prefork and module in PROGRAMS:
                self.process = ForkedProcess(module, arguments, env=self._environ, cwd=self.folder, output=out.fileno())
            else:
                self.process = subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    start_new_session=True,
                    cwd=self.folder,
                )
        wait_for_port(self.port, self.process, self.log)
        if self._admin is not None:
            # The port is open before the store is: a test that stops the store at once would prevent the start.
            until(self._ready, "the gateway is ready", within=START_TIMEOUT)
        return self

    def _ready(self) -> bool:
        assert self.process is not None and self._admin is not None
        assert self.process.poll() is None, complete_lines(self.log)
        connection = http.client.HTTPConnection(self._admin["listen"], timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sign)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """Send SIGKILL to all processes of the gateway, including its workers, so that none can clean up."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()
            self.kill()


class AnyServerProcess(GatewayProcess):
    """`akoya_gateway:sidecar` under uvicorn, started with the options of docs/operations.md."""

    def start(self) -> Self:
        self._admin = None  # uvicorn serves no admin listener
        return super().start()

    def command(self) -> list[str]:
        self._environ["AKOYA_GATEWAY_CONFIG"] = str(self.config_path)
        quiet = ("--no-proxy-headers", "--no-server-header", "--no-date-header", "--log-level", "error")
        return [
            PYTHON, "-m", "uvicorn", "--factory", "akoya_gateway:sidecar", "--port", str(self.port), *quiet,
            *self._options,
        ]  # fmt: skip


class MiddlewareServer:
    """`Gateway(app, config)` under uvicorn in a thread: the gateway as middleware of a host application."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], environ: Mapping[str, str], app: Any, mount: str = ""
    ) -> None:
        path = folder / "gateway.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in config.items() if k != "upstream"}, sort_keys=False))
        self.log = folder / "gateway.log"
        self.log.touch()
        self.gateway = Gateway(app, load_config(path, environ))
        port = int(str(config["listen"]).rpartition(":")[2])
        outer = Starlette(routes=[Mount(mount, app=self.gateway), Mount("/", app=PlainTextResponse("outside"))])
        self._server = AppServer(outer if mount else self.gateway, port=port, lifespan="auto" if mount else "on")

    def start(self) -> MiddlewareServer:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()


@contextlib.contextmanager
def client(**options: Any) -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60, **options) as session:
        yield session
