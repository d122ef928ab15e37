"""An app inside a gateway, with an emulated Akoya, under uvicorn in a thread; and a client that acts like a browser."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml
from starlette.types import ASGIApp

from akoya_gateway.config.loader import load_config
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.sandbox.server import SandboxServer, ThreadedServer, listen, no_tls, url_of
from akoya_gateway.sandbox.settings import SandboxConnector, SandboxSettings
from akoya_gateway.sandbox.signing_keys import SigningKeys

DEFAULTS: dict[str, Any] = {
    "clients": {"app": {"environment": "emulator", "scopes": ["openid", "profile", "offline_access"]}},
    "connectors": {"mikomo": {"client": "app", "name": "Mikomo Bank"}},
    "redirects": {"after_connect": "/", "allow": ["/", "/*"]},
    "access": [{"path": "/*", "require": "any", "otherwise": "connect"}],
}
DEPLOYMENT = {"listen", "admin", "upstream", "upstreams", "trusted_proxies", "forward_auth", "logging"}
"""Keys that do not concern an app in this process."""


class Browser(httpx.Client):
    """A client of the app, with cookies. It does not follow redirects.

    `akoya` is the emulator, for example for `browser.akoya.fault(...)`.
    """

    def __init__(self, url: str, prefix: str, akoya: SandboxServer) -> None:
        super().__init__(base_url=url, timeout=30, trust_env=False, verify=no_tls())
        self._prefix = prefix
        self.akoya = akoya

    def connect(self, connector: str = "mikomo", user: str = "mikomo_1") -> httpx.Response:
        """Connect a bank as its customer `user`, and return the gateway's response to the return from the bank.

        Raises:
            AssertionError: The gateway or the bank refused.
        """
        begun = self.get(f"{self._prefix}/connect/{connector}")
        assert begun.status_code == 302, begun.text
        done = self.get(self.akoya.consent(begun.headers["location"], user))
        assert done.status_code < 400, done.text
        return done


@contextmanager
def flow(
    app: ASGIApp, config: str | Path | Mapping[str, Any] | None = None, *, keys: SigningKeys | None = None
) -> Iterator[Browser]:
    """Start `app` inside a gateway, and return a browser.

    Args:
        app: The app, without a `Gateway` around it.
        config: The app's gateway.yaml, or parts of it. URLs, secrets and the store are replaced. What is missing has
            defaults: one bank `mikomo`, which every path needs.
        keys: Of the emulator. None: new ones.

    Raises:
        ConfigurationError: The configuration has errors.
    """
    given = config if isinstance(config, Mapping) else yaml.safe_load(Path(config).read_text("utf-8")) if config else {}
    document = {**DEFAULTS, **{name: value for name, value in given.items() if name not in DEPLOYMENT}}
    banks = {
        connector.get("connector", name): connector.get("name", name)
        for name, connector in document["connectors"].items()
    }
    settings = SandboxSettings(connectors=tuple(SandboxConnector(bank, name) for bank, name in banks.items()))
    prefix = document.get("root_path", "") + document.get("prefix", "/akoya")
    with listen() as listener, SandboxServer(settings, keys=keys) as akoya, TemporaryDirectory() as folder:
        url = url_of(listener)
        akoya.register_redirect_uri(f"{url}{prefix}/callback")
        path = Path(folder) / "gateway.yaml"
        path.write_text(yaml.safe_dump(_in_test(document, url, prefix, akoya), sort_keys=False), "utf-8")
        environ = {
            "CLIENT_ID": akoya.client_id,
            "CLIENT_SECRET": akoya.client_secret,
            "STORE_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "SIGNING_KEY": secrets.token_hex(32),
        }
        server = ThreadedServer(
            Gateway(app, load_config(path, environ)), listener, lifespan="on", ws="websockets-sansio", http="httptools"
        )
        server.start()
        try:
            with Browser(url, prefix, akoya) as browser:
                yield browser
        finally:
            server.stop()


def _in_test(document: Mapping[str, Any], url: str, prefix: str, akoya: SandboxServer) -> dict[str, Any]:
    """Return the configuration for the emulator, and for this process."""
    credentials = {
        "client_id": {"env": "CLIENT_ID"},
        "client_secret": {"env": "CLIENT_SECRET"},
        "redirect_uri": f"{url}{prefix}/callback",
    }
    clients = {name: {**client, **credentials} for name, client in document["clients"].items()}
    signing = {"algorithm": "hmac-sha256", "keys": [{"id": "test", "env": "SIGNING_KEY"}]}
    in_process = document.get("signing", {}).get("in_process", "headers")
    return {
        "version": 1,
        **document,
        "public_url": url,
        "environments": {client["environment"]: akoya.environment() for client in clients.values()},
        "clients": clients,
        "access": [{key: rule[key] for key in rule if key != "upstream"} for rule in document["access"]],
        "sessions": {"store": "memory://", "keys": [{"env": "STORE_KEY"}]},
        "signing": {**signing, "in_process": in_process},
        "limits": {**document.get("limits", {}), "connects_per_minute": 0},
    }
