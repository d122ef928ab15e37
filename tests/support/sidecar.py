"""Runs `akoya-gateway run` as a process in front of a small app that can be slow."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import START_TIMEOUT, AppServer, GatewayProcess
from tests.support.waiting import until

ENVIRON = {
    "AKOYA_CLIENT_ID": "client-id",
    "AKOYA_CLIENT_SECRET": "a-client-secret-nobody-may-see",
    "AKOYA_GATEWAY_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "AKOYA_SIGNING_SECRET": "a-signing-secret-nobody-may-see-at-all",
}


class App:
    """A test app. `.../slow` responds once `go` is set. `.../stream` and `.../events` send a line every 50 ms until then."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        """Set when a request for `/public/slow` has arrived."""
        self.go = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await _echo(receive, send)
        elif scope["type"] == "http":
            if scope["path"].endswith("/slow"):
                self.requested.set()
                await asyncio.to_thread(self.go.wait, 20)
            await self._response(scope["path"], send)

    async def _response(self, path: str, send: Any) -> None:
        kind = b"text/event-stream" if path.endswith("/events") else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        while path.endswith(("/stream", "/events")) and not self.go.is_set():
            await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"done"})


async def _echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or ""})


class Running:
    """A running gateway process: `with Running(tmp_path, "--workers", "2") as run:`."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        changes: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.app = App()
        self.upstream = AppServer(self.app)
        self.folder = folder
        self.gateway = GatewayProcess(
            folder, self.config() | dict(changes or {}), {**ENVIRON, **(environ or {})}, *options
        )

    def config(self) -> dict[str, Any]:
        return {
            "version": 1,
            "public_url": self.url,
            "listen": f"127.0.0.1:{self.port}",
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "upstream": {"url": self.upstream.url},
            "environments": {
                "double": {
                    "issuer": "http://127.0.0.1:9",
                    "authorization_endpoint": "http://127.0.0.1:9/auth",
                    "token_endpoint": "http://127.0.0.1:9/token",
                    "revocation_endpoint": "http://127.0.0.1:9/revoke",
                    "jwks_uri": "http://127.0.0.1:9/keys",
                    "products_url": "http://127.0.0.1:9",
                }
            },
            "clients": {
                "demo": {
                    "environment": "double",
                    "client_id": {"env": "AKOYA_CLIENT_ID"},
                    "client_secret": {"env": "AKOYA_CLIENT_SECRET"},
                    "redirect_uri": f"{self.url}/akoya/callback",
                    "scopes": ["openid", "profile", "offline_access"],
                }
            },
            "connectors": {"mikomo": {"client": "demo", "name": "Mikomo Bank"}},
            "redirects": {"after_connect": "/", "allow": ["/"]},
            "access": [{"path": "/public/*", "require": "nothing"}],
            "sessions": {"store": f"sqlite://{self.folder}/grants.db", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]},
            "signing": {"algorithm": "hmac-sha256", "keys": [{"id": "k1", "env": "AKOYA_SIGNING_SECRET"}]},
            "logging": {"format": "json", "level": "info"},
        }

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        try:
            self.gateway.start()
            until(self._ready, "it is ready", within=START_TIMEOUT)
        except BaseException:
            self.upstream.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.app.go.set()
        self.gateway.__exit__()
        self.upstream.__exit__()

    def _ready(self) -> bool:
        try:
            return self.fetch_admin("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        assert self.gateway.process is not None
        return self.gateway.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self, within: float = 60.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within: float = 60.0) -> int:
        assert self.gateway.process is not None
        return self.gateway.process.wait(within)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=60, **options)

    def fetch_admin(self, path: str) -> httpx.Response:
        return httpx.get(self.admin + path, trust_env=False, timeout=60)

    def draining(self) -> bool:
        return self.fetch_admin("/readyz").status_code == 503

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.fetch_admin("/readyz").json()["workers"]]

    def log(self) -> list[dict[str, Any]]:
        """Parse the log. Every line must be JSON."""
        return [json.loads(line) for line in complete_lines(self.gateway.log).splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.log()]
