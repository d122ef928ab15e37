"""The demo: emulator, sample app and gateway, each on a loopback port, with generated keys and configuration.

The emulator and the sample app are threads of this process. The gateway is a regular `akoya-gateway run` process.
"""

from __future__ import annotations

import base64
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from akoya_gateway.sandbox.sample_app import SampleApp
from akoya_gateway.sandbox.server import SandboxServer, ThreadedServer, listen, no_tls, url_of
from akoya_gateway.sandbox.settings import SandboxSettings
from akoya_verify import RemoteKeys

READY_TIMEOUT = 30.0
DEFAULT_PORT = 8080
DEFAULT_BANK_PORT = 9100
_RUN = """
import os, signal, threading
from akoya_gateway.cli import main

def stop_with_the_demo():
    os.read(0, 1)  # ends when the demo is gone, however it ended: the other end of the pipe is closed then
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_the_demo, daemon=True).start()
main()
"""


class DemoFailed(RuntimeError):
    """The gateway did not start, or exited while starting."""


class Demo:
    """Context manager that runs all three on entry, and on exit stops them and deletes the temporary folder.

    Args:
        port: The gateway's port. None: 8080 if it is free, else any free port.
        settings: The emulator's settings.
        bank_port: The emulator's port. None: 9100 if it is free, else any free port.
        host: The address on which the gateway and the emulator listen: a loopback address or a wildcard. Their URLs
            have the loopback address in both cases, as seen from the end of a forwarded port.

    Raises:
        OSError: The port is in use.
    """

    def __init__(
        self,
        port: int | None = None,
        settings: SandboxSettings | None = None,
        *,
        bank_port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._port = _free_port(host, port)
        self._folder = tempfile.TemporaryDirectory(prefix="akoya-gateway-demo-")
        self.url = f"http://127.0.0.1:{self._port}"
        """The URL to open in a browser."""
        redirect_uri = f"{self.url}/akoya/callback"
        settings = settings or SandboxSettings()
        clients = tuple(replace(client, redirect_uris=(redirect_uri,)) for client in settings.clients)
        self.sandbox = _sandbox(replace(settings, clients=clients), host, bank_port)
        self._app_listener = listen()
        self.app_url = url_of(self._app_listener)
        keys = RemoteKeys(f"{self.url}/akoya/jwks.json")
        self._app = ThreadedServer(SampleApp(keys), self._app_listener)
        self.config = self._write_configuration(redirect_uri)
        self._gateway: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.sandbox.start()
            self._app.start()
            self._start_gateway()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.stop()

    def wait(self) -> int:
        """Wait until the gateway exits and return its exit code."""
        assert self._gateway is not None
        return self._gateway.wait()

    def stop(self) -> None:
        """Stop all three and delete the temporary folder. Idempotent."""
        if self._gateway is not None and self._gateway.poll() is None:
            self._gateway.send_signal(signal.SIGTERM)
            try:
                self._gateway.wait(10)
            except subprocess.TimeoutExpired:
                self._gateway.kill()
                self._gateway.wait()
        if self._gateway is not None and self._gateway.stdin is not None:
            self._gateway.stdin.close()
        self._app.stop()
        self.sandbox.stop()
        self._folder.cleanup()

    def _start_gateway(self) -> None:
        # A new session, so that Ctrl-C reaches only this process, which then stops the gateway gracefully.
        command = [sys.executable, "-c", _RUN, "run", "--config", str(self.config)]
        self._gateway = subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE)  # noqa: S603
        deadline = time.monotonic() + READY_TIMEOUT
        with httpx.Client(timeout=2, trust_env=False, verify=no_tls()) as http:
            while time.monotonic() < deadline:
                code = self._gateway.poll()
                if code is not None:
                    raise DemoFailed(f"the gateway ended with exit code {code}")
                try:
                    if http.get(f"{self.url}/akoya/").status_code < 500:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise DemoFailed(f"the gateway did not respond within {READY_TIMEOUT:g} seconds")

    def _write_configuration(self, redirect_uri: str) -> Path:
        folder = Path(self._folder.name)
        signing = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        secret_files = {
            "client_id": self.sandbox.client_id.encode(),
            "client_secret": self.sandbox.client_secret.encode(),
            "store.key": base64.b64encode(secrets.token_bytes(32)),
            "signing.pem": signing,
        }
        for name, content in secret_files.items():
            path = folder / name
            path.touch(0o600)
            path.write_bytes(content)
        path = folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(self._document(redirect_uri), sort_keys=False))
        return path

    def _document(self, redirect_uri: str) -> Mapping[str, Any]:
        connectors = {
            connector.id: {"client": "demo-app", "name": connector.name}
            for connector in self.sandbox.settings.connectors
        }
        return {
            "version": 1,
            "public_url": self.url,
            "listen": f"{self._host}:{self._port}",
            "admin": None,
            "upstream": {"url": self.app_url},
            "upstreams": {"bank-data": {"data_api": "emulator"}},
            "environments": {
                "emulator": self.sandbox.environment() | {"data_rate": self.sandbox.settings.v3_rate_limit}
            },
            "clients": {
                "demo-app": {
                    "environment": "emulator",
                    "client_id": {"file": "client_id"},
                    "client_secret": {"file": "client_secret"},
                    "redirect_uri": redirect_uri,
                    "scopes": ["openid", "profile", "offline_access"],
                }
            },
            "connectors": connectors,
            "redirects": {"after_connect": "/accounts", "allow": ["/", "/accounts", "/headers"]},
            "access": [
                {"path": "/assets/*", "require": "nothing"},
                {"path": "/bank-data/{connector}/*", "require": "{connector}", "upstream": "bank-data"},
                {"path": "/", "require": "any", "otherwise": "pass", "pass_token": False},
                {"path": "/headers", "require": "any", "otherwise": "pass", "pass_token": False},
                {"path": "/*", "require": "any", "otherwise": "connect", "pass_token": False},
            ],
            "sessions": {"store": "sqlite:grants.db", "keys": [{"file": "store.key"}]},
            "signing": {
                "scheme": "http-message-signatures",
                "algorithm": "ed25519",
                "keys": [{"id": "demo", "file": "signing.pem"}],
            },
            "tokens": {"refresh_before": f"{min(60, self.sandbox.settings.id_token_lifetime / 2):.0f}s"},
            "logging": {"format": "console", "level": "error"},
        }


def _sandbox(settings: SandboxSettings, host: str, port: int | None) -> SandboxServer:
    """Return the emulator on `port`. If it is None, on 9100 or any free port. Raises OSError."""
    if port is None:
        try:
            return SandboxServer(settings, host=host, port=DEFAULT_BANK_PORT)
        except OSError:
            port = 0
    return SandboxServer(settings, host=host, port=port)


def _free_port(host: str, port: int | None) -> int:
    """Return `port` if it is free. If it is None, return 8080 or any free port. Raises OSError."""
    for wanted in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            listener = listen(host, wanted)
        except OSError:
            if port is None and wanted:
                continue
            raise
        found: int = listener.getsockname()[1]
        listener.close()
        return found
    raise AssertionError("port 0 is always free")
