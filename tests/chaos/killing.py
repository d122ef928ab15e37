"""Points at which a gateway is killed, what is seen afterwards, and whether that is the truth.

The truth is the emulator's: which refresh tokens it was shown, and which it gave out.
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
from collections.abc import AsyncIterator
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
from tests.e2e.environment import CLIENT_ID, CLIENT_SECRET, HMAC_SECRET, STORE_KEY
from tests.stream_ending import children
from tests.stream_ending import kill as kill_all

REDIRECT_URI = "http://127.0.0.1:1/akoya/callback"
ENVIRON = {
    "AKOYA_CLIENT_SECRET": CLIENT_SECRET,
    "AKOYA_GATEWAY_KEY": STORE_KEY,
    "AKOYA_SIGNING_SECRET": HMAC_SECRET,
    "PATH": "/usr/bin:/bin",
}


@dataclass(slots=True)
class Point:
    """One grant and one killing. `first` is the refresh token it began with, by its fingerprint."""

    grant: str
    consent: str
    first: str
    killed: bool = False
    where: str = ""
    uses: list[dict[str, Any]] = field(default_factory=list)
    """What the emulator was asked to refresh, for this consent."""

    @property
    def issued(self) -> list[dict[str, Any]]:
        return [use for use in self.uses if use["outcome"] == "issued"]


class Place:
    """An emulator, a store, and a survivor: a keeper whose clock can be moved, in this process."""

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
        self.vault = EncryptedStore(open_store(self.config.sessions.store, self.clock), Keyring(self.config.sessions.keys))
        await self.vault.open()
        self.providers = open_providers(self.config, self.clock)
        self.book = GrantRepository(self.vault)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.providers.close()
        await self.vault.close()
        self.akoya.stop()

    def keeper(self) -> GrantManager:
        """One that has seen nothing yet, as a gateway that has just been started."""
        return GrantManager(self.vault, self.providers, self.config.tokens, clock=self.clock)

    async def point(self, number: int) -> Point:
        """A fresh consent of an owner of its own, whose bearer has `LEFT` seconds to go."""
        asked = {
            "connector": "mikomo",
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "openid profile offline_access",
            "state": "a-state-of-enough-bytes",
        }
        landed = await asyncio.to_thread(self.akoya.consent, f"{self.akoya.url}/auth?{urlencode(asked)}")
        code = parse_qs(urlsplit(landed).query)["code"][0]
        answer = await self.providers["test-app"].exchange(Secret(code))
        assert isinstance(answer, TokensIssued)
        client = self.config.clients["test-app"]
        grant = await self.keeper().connect(f"own_{number}", client, "mikomo", answer.tokens)
        assert grant.tokens.consent_id is not None
        await age(self.book, grant.id, left=LEFT)
        return Point(grant.id, grant.tokens.consent_id, held(grant) or "")

    def look(self, points: list[Point]) -> None:
        """What the emulator has seen of each."""
        by_consent: dict[str, list[dict[str, Any]]] = {point.consent: [] for point in points}
        for event in self.akoya.events("token"):
            if event.get("grant_type") == "refresh_token" and event["grant_id"] in by_consent:
                by_consent[event["grant_id"]].append(event)
        for point in points:
            point.uses = by_consent[point.consent]

    async def stored(self, point: Point) -> Grant:
        """It is there, whatever happened, and says what is to be done."""
        grant = await self.book.get(point.grant)
        assert grant is not None, "the grant is lost"
        assert remedy(grant.state, grant.reason).what
        return grant

    async def fresh(self, point: Point) -> Grant | GatewayError:
        """What a request for it would get from a gateway that has just been started."""
        grants = self.keeper()
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
"""Seconds. A request asks for a refresh, and the bearer still lives when the last point of a batch is looked at, however
busy the machine."""


def held(grant: Grant) -> str | None:
    """The refresh token of a grant as the emulator's events name it."""
    token = grant.tokens.refresh_token
    return None if token is None else fingerprint(token.reveal())


class Nursery:
    """`tests.chaos.process_pool` as a process; several orders may be under way in several nurseries."""

    def __init__(self, config: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.process_pool", str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRON,
            cwd=Path(__file__).parents[2],
            text=True,
            start_new_session=True,
        )

    def order(self, **order: Any) -> dict[str, Any]:
        """Blocks until the child has ended, one way or the other."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            # Whoever waits for its answer does so on a thread that nothing else would end.
            kill_all({self._process.pid} | children(self._process.pid))
            raise AssertionError("a nursery did not end within 20 s: a child of it neither died nor lived") from None


@contextlib.asynccontextmanager
async def nurseries(config: Path, number: int = 2) -> AsyncIterator[asyncio.Queue[Nursery]]:
    free: asyncio.Queue[Nursery] = asyncio.Queue()
    all_of_them = [Nursery(config) for _ in range(number)]
    for each in all_of_them:
        free.put_nowait(each)
    try:
        yield free
    finally:
        with contextlib.ExitStack() as stack:
            for each in all_of_them:
                stack.callback(each.close)


async def kill(free: asyncio.Queue[Nursery], point: Point, do: str = "refresh", **how: Any) -> int | None:
    """A gateway takes up the grant and is killed (or not: returns how many lines it took)."""
    nursery = await free.get()
    try:
        answer = await asyncio.to_thread(nursery.order, do=do, grant=point.grant, **how)
    finally:
        free.put_nowait(nursery)
    point.killed = answer["killed"]
    point.where = str(how)
    return answer["count"]  # type: ignore[no-any-return]


def tally(kinds: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def seeded() -> random.Random:
    """A new seed every time, printed with the failure."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)
