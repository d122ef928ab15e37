"""Several gateways on one store: whole processes on their own ports, the emulator, an upstream, and store access."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import httpx

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Config
from akoya_gateway.grants import Grant, GrantRepository
from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from tests.chaos.echo import EchoServer
from tests.support.environment import CLIENT_SECRET, Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess

CACHES = 1.2
"""Seconds after which no gateway uses cached store reads any more."""


class Fleet(GatewayEnv):
    """`size` gateways. The first is that of the environment, at `public_url`. Cookies ignore ports, so all receive them."""

    def __init__(self, folder: Path, size: int = 3, *, store: str | None = None, **options: Any) -> None:
        changes = dict(options.pop("changes", {}))
        changes.setdefault("sessions", {"store": store or f"sqlite://{folder}/grants.db", "keys": KEYS})
        secret_file = options.pop("secret_file", False)
        self.secret = folder / "client-secret"
        """Path of the client secret, with `secret_file`."""
        changes.setdefault("logging", {"level": "info", "access": False})
        super().__init__(folder, changes=changes, upstream=EchoServer(), algorithm="hmac-sha256", **options)
        self.size = size
        self._secret_file = secret_file
        if secret_file:
            self.secret.write_text(CLIENT_SECRET)
        self.others: list[GatewayProcess] = []

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            with ThreadPoolExecutor(4) as pool:
                self.others = list(pool.map(lambda n: self.replica(n).start(), range(1, self.size)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self.others:
            gateway.__exit__()
        super().__exit__()

    @property
    def gateways(self) -> list[GatewayProcess]:
        assert isinstance(self.gateway, GatewayProcess)
        return [self.gateway, *self.others]

    @property
    def ports(self) -> list[int]:
        return [gateway.port for gateway in self.gateways]

    def replica(self, number: int) -> GatewayProcess:
        """Add a gateway without starting it."""
        folder = self.folder / f"replica-{number}"
        folder.mkdir(exist_ok=True)
        changes = {
            "listen": f"127.0.0.1:{free_port()}",
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
        }
        return GatewayProcess(folder, self.config() | changes, self.environ, *self._options)

    def config(self) -> dict[str, Any]:
        config = super().config()
        if self._secret_file:
            config["clients"]["test-app"]["client_secret"] = {"file": str(self.secret)}
        return config

    def loaded(self) -> Config:
        """Return the configuration as the gateways load it."""
        return load_config(self.gateways[0].config_path, self.environ)

    @contextlib.asynccontextmanager
    async def book(self) -> AsyncIterator[GrantRepository]:
        """Open the store, in parallel to the gateways."""
        sessions = self.loaded().sessions
        store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys))
        await store.open()
        try:
            yield GrantRepository(store)
        finally:
            await store.close()

    def visitor(self, user: str = "mikomo_1", connector: str = "mikomo") -> Visitor:
        """Return a new visitor with one connected bank."""
        browser = self.browser()
        landed = browser.connect(connector, user)
        assert landed.status_code in (302, 303), landed.text
        assert "error" not in landed.headers["location"]
        (connection,) = browser.connections()["connections"]
        visitor = Visitor(browser, "", to_record_id(connection["id"]))
        return replace(visitor, cookie=visitor.cookie_now())

    def refreshes(self, outcome: str | None = None) -> list[dict[str, Any]]:
        """Return the emulator's refresh events, in order."""
        events = [e for e in self.akoya.events("token") if e.get("grant_type") == "refresh_token"]
        return [e for e in events if outcome in (None, e["outcome"])]


KEYS = [{"env": "AKOYA_GATEWAY_KEY"}]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user with a browser. `cookie` is the Cookie header, `grant` the id of the only grant."""

    browser: Browser
    cookie: str
    grant: str

    def cookie_now(self) -> str:
        """Update the visitor after the browser has got another cookie."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.browser.http.cookies.jar)

    def state(self) -> str:
        """Return the connections as the connections page shows them."""
        return str(self.browser.connections()["connections"][0]["state"])


def aged(grant: Grant, left: float) -> Grant:
    """Return the grant as if its bearer expired in `left` seconds after a long life. The real one stays valid."""
    now = time.time()
    return replace(grant, tokens=replace(grant.tokens, expires_at=now + left), refreshed_at=now - 3600.0)


async def age(repository: GrantRepository, grant_id: str, left: float) -> Grant:
    """Apply `aged` in the store."""
    while True:
        grant = await repository.get(grant_id)
        assert grant is not None
        written = await repository.write(aged(grant, left), after=grant.version)
        if written is not None:
            return written


def fingerprint(token: str) -> str:
    """Return the fingerprint by which the emulator's events name a token."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def readyz(fleet: Fleet, number: int = 0) -> tuple[int, Mapping[str, Any]]:
    admin = fleet.gateways[number]
    config = admin.config_path.read_text()
    address = config.partition("admin:")[2].partition("listen:")[2].split()[0].strip("'\"")
    response = httpx.get(f"http://{address}/readyz", trust_env=False, timeout=60)
    return response.status_code, response.json()
