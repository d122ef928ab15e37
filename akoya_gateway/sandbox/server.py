"""Runs the emulator in a thread on its own port, with the control API as methods."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from akoya_gateway.clock import Clock
from akoya_gateway.sandbox.app import create_app
from akoya_gateway.sandbox.endpoint import ABORT
from akoya_gateway.sandbox.fault_injection import Fault, FaultKind
from akoya_gateway.sandbox.gateway_environment import environment, jwks_path
from akoya_gateway.sandbox.settings import SandboxSettings
from akoya_gateway.sandbox.signing_keys import SigningKeys

START_TIMEOUT = 15.0


class AbortableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with an extension that lets the app abort the connection (see `endpoint.cut`)."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, dict[Any, Any]] = {ABORT: {"abort": self.transport.abort}}
        self.scope["extensions"] = extensions


def uvicorn_config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """Return the uvicorn configuration of the emulator: little logging, and connections that the app can abort."""
    defaults: dict[str, Any] = {
        "http": AbortableProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "timeout_graceful_shutdown": 2,
    }
    return uvicorn.Config(app, **(defaults | options))


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket. Port 0 selects a free port. Raises OSError, with the address as `filename`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        error.filename = f"{host}:{port}"
        raise
    return listener


def no_tls() -> ssl.SSLContext:
    """Return a TLS context for clients of loopback http. It loads no system certificates, which is slow."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket, with a loopback address for a wildcard one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ThreadedServer:
    """An ASGI app under uvicorn in a thread."""

    def __init__(self, app: ASGIApp, listener: socket.socket, **options: Any) -> None:
        """`options` are those of `uvicorn.Config`; see `uvicorn_config` for the defaults."""
        self._listener = listener
        self._server = uvicorn.Server(uvicorn_config(app, **options))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="akoya-sandbox", daemon=True
        )

    def start(self) -> None:
        """Start the server. Raises RuntimeError if it does not listen within 15 seconds."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the server did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(0.5)
            if self._thread.is_alive():  # A request is still in progress, most likely because of a slow fault.
                self._server.force_exit = True
                self._thread.join(5)
        self._listener.close()


class SandboxServer:
    """The emulator on loopback, with its control API enabled. A context manager.

    >>> with SandboxServer() as akoya:  # doctest: +SKIP
    ...     akoya.fault("cut_after", "token.refresh_token", times=1)
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        keys: SigningKeys | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._listener = listen(host, port)
        self.url = url_of(self._listener)
        """Base URL of all endpoints, without a trailing slash."""
        settings = settings or SandboxSettings()
        self.settings = replace(settings, base_url=settings.base_url or self.url, control=True)
        self._server = ThreadedServer(create_app(self.settings, clock, keys=keys), self._listener)
        self._http = httpx.Client(base_url=self.url, timeout=10, trust_env=False, verify=no_tls())
        self._secret = self.settings.clients[0].client_secret.reveal()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Stop the server. Idempotent."""
        with suppress(RuntimeError):
            self._http.close()
        self._server.stop()

    @property
    def client_id(self) -> str:
        """The client_id of the first client."""
        return self.settings.clients[0].client_id

    @property
    def client_secret(self) -> str:
        """The current client_secret of the first client."""
        return self._secret

    @property
    def issuer(self) -> str:
        return self.settings.issuer or f"{self.url}/"

    @property
    def jwks_uri(self) -> str:
        return self.url + jwks_path(self.settings)

    def environment(self) -> dict[str, Any]:
        """Return the entry for `environments:` of a gateway.yaml."""
        return environment(self.settings)

    def consent(self, url: str, user: str = "mikomo_1", accounts: Sequence[str] | None = None) -> str:
        """Return the Location of the redirect after `user` has approved the request of this authorization URL.

        Args:
            accounts: The accounts to share. None: all.

        Raises:
            ValueError: An error page is shown instead, or the user or the accounts do not exist.
        """
        body = {"url": url, "user": user, "accounts": None if accounts is None else list(accounts)}
        return str(self._post("consent", body)["location"])

    def fault(self, kind: FaultKind | str, endpoint: str = "token", **options: Any) -> None:
        """Enable a fault. `options` are the properties of `Fault`."""
        self._post("faults", Fault(FaultKind(kind), endpoint, **options).document())

    def clear_faults(self) -> None:
        self._http.delete("/_sandbox/faults").raise_for_status()

    def events(self, what: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded events. `what` is `token`, `revoke`, `authorization`, `consent` or `data`."""
        response = self._http.get("/_sandbox/events", params={"what": what} if what else {})
        return list(response.raise_for_status().json()["events"])

    def counters(self) -> dict[str, int]:
        return dict(self._http.get("/_sandbox/counters").raise_for_status().json()["counters"])

    def grants(self) -> list[dict[str, Any]]:
        """Return the consents: grant_id, client_id, connector, user, ended."""
        return list(self._http.get("/_sandbox/grants").raise_for_status().json()["grants"])

    def reset(self) -> None:
        self._post("reset", {})
        self._secret = self.settings.clients[0].client_secret.reveal()

    def revoke_consent(self, **which: Any) -> list[str]:
        """End consents as the customer does in the bank's portal, and return their grant IDs.

        Args:
            which: `grant_id=` or `user=` (and `connector=`). `code=601` selects the newer error code.
        """
        return list(self._post("revoke-consent", which)["ended"])

    def advance(self, seconds: float) -> None:
        """Advance the emulator's clock."""
        self._post("clock", {"advance": seconds})

    def rotate_keys(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on and return its ID."""
        return str(self._post("keys/rotate", {"keep_old": keep_old})["kid"])

    def rotate_secret(self, secret: str) -> None:
        """Replace the first client's secret."""
        self._post("client", {"client_id": self.client_id, "client_secret": secret})
        self._secret = secret

    def register_redirect_uri(self, uri: str) -> None:
        """Register another redirect URI for the first client."""
        self._post("client", {"client_id": self.client_id, "redirect_uri": uri})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._http.post(f"/_sandbox/{path}", json=body)
        if response.status_code == 400:
            raise ValueError(response.json()["error"])
        return dict(response.raise_for_status().json())
