"""Points at which a gateway is killed, and checks of the state that it leaves against the emulator's records.

The emulator is the reference: it recorded which refresh tokens it received and which it issued.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import yaml

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import Grant, GrantManager, GrantRepository, remedy
from akoya_gateway.oauth.outcomes import TokensIssued
from akoya_gateway.provider import Providers, open_providers
from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import SandboxClient, SandboxSettings
from akoya_gateway.secret import Secret
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from tests.chaos.replicas import age, fingerprint
from tests.support.environment import CLIENT_ID, CLIENT_SECRET, HMAC_SECRET, STORE_KEY
from tests.support.shutdown import children
from tests.support.shutdown import kill as kill_all

REDIRECT_URI = "http://127.0.0.1:1/akoya/callback"
ENVIRON = {
    "AKOYA_CLIENT_SECRET": CLIENT_SECRET,
    "AKOYA_GATEWAY_KEY": STORE_KEY,
    "AKOYA_SIGNING_SECRET": HMAC_SECRET,
    "PATH": "/usr/bin:/bin",
}


@dataclass(slots=True)
class Point:
    """One grant and one kill. `first` is the fingerprint of the grant's initial refresh token."""

    grant: str
    consent: str
    first: str
    killed: bool = False
    where: str = ""
    uses: list[dict[str, Any]] = field(default_factory=list)
    """The emulator's events for refreshes of this consent."""

    @property
    def issued(self) -> list[dict[str, Any]]:
        return [use for use in self.uses if use["outcome"] == "issued"]


class Place:
    """An emulator, a store, and a survivor: a grant manager in this process whose clock can be moved."""

    def __init__(self, folder: Path, store: str, dialect: str) -> None:
        client = SandboxClient(CLIENT_ID, Secret(CLIENT_SECRET), (REDIRECT_URI,))
        self.akoya = SandboxServer(SandboxSettings(clients=(client,), dialect=dialect))  # type: ignore[arg-type]
        self._folder = folder
        self._store = store
        self.ahead = 0.0
        """Seconds by which the survivor's clock is ahead."""
        self.book: GrantRepository
        self.config: Config
        self.providers: Providers
        self.vault: EncryptedStore

    def clock(self) -> float:
        return time.time() + self.ahead

    @property
    def path(self) -> Path:
        return self._folder / "gateway.yaml"

    async def __aenter__(self) -> Place:
        self.akoya.start()
        self.path.write_text(yaml.safe_dump(self._document()))
        self.config = load_config(self.path, ENVIRON)
        self.vault = EncryptedStore(
            open_store(self.config.sessions.store, self.clock), Keyring(self.config.sessions.keys)
        )
        await self.vault.open()
        self.providers = open_providers(self.config, self.clock)
        self.book = GrantRepository(self.vault)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.providers.close()
        await self.vault.close()
        self.akoya.stop()

    def new_manager(self) -> GrantManager:
        """Return a grant manager without cached state, as in a gateway that has just started."""
        return GrantManager(self.vault, self.providers, self.config.tokens, clock=self.clock)

    async def point(self, number: int) -> Point:
        """Create a consent for a new owner, whose bearer expires in `LEFT` seconds."""
        parameters = {
            "connector": "mikomo",
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "openid profile offline_access",
            "state": "a-state-of-enough-bytes",
        }
        landed = await asyncio.to_thread(self.akoya.consent, f"{self.akoya.url}/auth?{urlencode(parameters)}")
        code = parse_qs(urlsplit(landed).query)["code"][0]
        response = await self.providers["test-app"].exchange(Secret(code))
        assert isinstance(response, TokensIssued)
        client = self.config.clients["test-app"]
        grant = await self.new_manager().connect(f"own_{number}", client, "mikomo", response.tokens)
        assert grant.tokens.consent_id is not None
        await age(self.book, grant.id, left=LEFT)
        return Point(grant.id, grant.tokens.consent_id, held(grant) or "")

    def look(self, points: list[Point]) -> None:
        """Load what the emulator has recorded for each point."""
        by_consent: dict[str, list[dict[str, Any]]] = {point.consent: [] for point in points}
        for event in self.akoya.events("token"):
            if event.get("grant_type") == "refresh_token" and event["grant_id"] in by_consent:
                by_consent[event["grant_id"]].append(event)
        for point in points:
            point.uses = by_consent[point.consent]

    async def stored(self, point: Point) -> Grant:
        """Return the stored grant. It must exist in any case, with a remedy."""
        grant = await self.book.get(point.grant)
        assert grant is not None, "the grant is lost"
        assert remedy(grant.state, grant.reason).what
        return grant

    async def fresh(self, point: Point) -> Grant | GatewayError:
        """Return what a request for this grant gets from a gateway that has just started."""
        grants = self.new_manager()
        try:
            return await grants.get_fresh(await self.stored(point))
        except GatewayError as error:
            return error
        finally:
            await grants.stop()

    def _document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "public_url": "http://127.0.0.1:1",
            "environments": {"double": self.akoya.environment() | {"rate": 1000}},
            "clients": {
                "test-app": {
                    "environment": "double",
                    "client_id": CLIENT_ID,
                    "client_secret": {"env": "AKOYA_CLIENT_SECRET"},
                    "redirect_uri": REDIRECT_URI,
                }
            },
            "connectors": {"mikomo": {"client": "test-app"}},
            "access": [{"path": "/*", "require": "any"}],
            "sessions": {"store": self._store, "keys": [{"env": "AKOYA_GATEWAY_KEY"}]},
            "signing": {"algorithm": "hmac-sha256", "keys": [{"id": "k1", "env": "AKOYA_SIGNING_SECRET"}]},
            "tokens": {"background": False, "refresh_before": f"{REFRESH_BEFORE:.0f}s"},
        }


REFRESH_BEFORE, LEFT = 600.0, 500.0
"""In seconds. A request triggers a refresh, and the bearer is still valid when the last point of a batch is checked,
even on a busy machine."""


def held(grant: Grant) -> str | None:
    """Return the grant's refresh token as the emulator's events name it (its fingerprint)."""
    token = grant.tokens.refresh_token
    return None if token is None else fingerprint(token.reveal())


class Nursery:
    """`tests.chaos.process_pool` as a process. One order at a time; several nurseries work in parallel."""

    def __init__(self) -> None:
        self.config: Path
        """Configuration of the gateways."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.process_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRON,
            cwd=Path(__file__).parents[2],
            text=True,
            start_new_session=True,
        )

    def order(self, **order: Any) -> dict[str, Any]:
        """Send an order and block until its child has ended, killed or not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"config": str(self.config), **order}) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            # The thread that waits for this process's output would otherwise never end.
            kill_all({self._process.pid} | children(self._process.pid))
            raise AssertionError("a nursery did not end within 20 s: one of its children hangs") from None


@contextlib.contextmanager
def nurseries(number: int = 2) -> Iterator[list[Nursery]]:
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(number):
            started.append(Nursery())
            stack.callback(started[-1].close)
        yield started


def queue_of(nurseries: list[Nursery], config: Path) -> asyncio.Queue[Nursery]:
    """Return the nurseries as a queue of those that are free. They use this configuration."""
    free: asyncio.Queue[Nursery] = asyncio.Queue()
    for each in nurseries:
        each.config = config
        free.put_nowait(each)
    return free


async def kill(free: asyncio.Queue[Nursery], point: Point, do: str = "refresh", **how: Any) -> int | None:
    """Have a gateway process the grant and be killed. Return the lines it ran, or None if it was killed."""
    nursery = await free.get()
    try:
        response = await asyncio.to_thread(nursery.order, do=do, grant=point.grant, **how)
    finally:
        free.put_nowait(nursery)
    point.killed = response["killed"]
    point.where = str(how)
    return response["count"]  # type: ignore[no-any-return]


def tally(kinds: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def seeded() -> random.Random:
    """Return a random generator with a new seed, which is printed in case the test fails."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)
