"""A sidecar that runs in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from typing import Any

import pytest
import yaml

from akoya_gateway import load_config
from akoya_gateway.entrypoints.sidecar import Sidecar
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.request_cache import CachedTarget
from akoya_gateway.observability.access_log import AccessLog
from akoya_gateway.observability.logs import open_log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.stdout import StandardOutput
from akoya_gateway.server.uvicorn_server import DrainingServer, server_config
from tests.support.environment import GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import wait_for_port


class InProcess:
    """A sidecar with the configuration of an environment that runs in a thread, so that uses of the fast lane can be counted."""

    def __init__(self, env: GatewayEnv, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        """Pass `options` on to `LimitedHttpProtocol`."""
        self._options = options
        self.departures: list[str] = []
        self.port = free_port()
        path = env.folder / "in-process.yaml"
        path.write_text(yaml.safe_dump({**env.config(), "listen": f"127.0.0.1:{self.port}", "admin": None}))
        self._config = load_config(path, env.environ)
        depart = FastLane.dispatch

        def counted(lane: FastLane, target: CachedTarget, *rest: Any) -> Any:
            found = depart(lane, target, *rest)
            if found is not None:
                self.departures.append(target.start.decode().removesuffix(" HTTP/1.1\r\n"))
            return found

        monkeypatch.setattr(FastLane, "dispatch", counted)
        self._stop: Any = None
        self._settings: Any = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        logging = self._config.logging
        access = AccessLog(logging, StandardOutput().gather)
        sidecar = Sidecar(self._config, Metrics("test"), open_log(logging), access)
        await sidecar.startup()
        protocol = partial(sidecar.protocol, **self._options)
        self._settings = server_config(sidecar.app, head_limit=65536, protocol=protocol)
        server = DrainingServer(self._settings, 1.0)
        loop = asyncio.get_running_loop()
        self._stop = partial(loop.call_soon_threadsafe, server.stop)
        listener = socket.create_server(("127.0.0.1", self.port))
        await server.serve([listener])
        await sidecar.shutdown()

    def __enter__(self) -> InProcess:
        self._thread.start()
        wait_for_port(self.port)
        return self

    def keep(self, seconds: int) -> None:
        """Set the keep-alive timeout of connections that become idle from now on."""
        self._settings.timeout_keep_alive = seconds

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(10)
