"""States of a real Redis server in which it responds with errors: each is reported, and the store recovers by itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
import redis

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import Record, Store, open_store
from tests.support.redis_servers import Cluster, RedisServer
from tests.support.waiting import until, until_async

ADMIN = "password-of-the-admin"


@dataclass(frozen=True)
class State:
    """How the server gets into a state and out of it, and what the store reports."""

    begin: Callable[[], object]
    end: Callable[[], object]
    reason: str
    reads: bool = False
    """Whether records can be read meanwhile."""


class Faulty:
    """A server with a user `admin` who is not affected by what is done to the default user, as which stores connect."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._default = redis.Redis(port=server.port)
        self._default.execute_command("ACL", "SETUSER", "admin", "on", f">{ADMIN}", "~*", "&*", "+@all")
        self.admin = redis.Redis(port=server.port, username="admin", password=ADMIN)
        self.admin.config_set("lua-time-limit", 20)
        self.states = {
            "READONLY": State(self._follow, self._lead, "it is a replica now", reads=True),
            "MASTERDOWN": State(partial(self._follow, stale=False), self._lead, "the primary is down"),
            "OOM": State(
                partial(self._set, "maxmemory", 1), partial(self._set, "maxmemory", 0), "memory is full", True
            ),
            "MISCONF": State(self._fail_saving, self._save, "cannot save to its disk", reads=True),
            "WRONGPASS": State(
                partial(self._change_user, "resetpass", ">new"),
                partial(self._change_user, "nopass"),
                "the user or password was refused",
            ),
            "disabled": State(
                partial(self._change_user, "off"), partial(self._change_user, "on"), "the user or password was refused"
            ),
            "BUSY": State(self._run_endless_script, self._kill_script, "a script of another program blocks it"),
        }

    def disconnect_all(self) -> None:
        for kind in ("normal", "pubsub"):
            self.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def _set(self, name: str, value: int | str) -> None:
        self.admin.config_set(name, value)

    def _follow(self, *, stale: bool = True) -> None:
        self._set("replica-serve-stale-data", "yes" if stale else "no")
        self.admin.replicaof("127.0.0.1", "1")

    def _lead(self) -> None:
        self.admin.replicaof("NO", "ONE")

    def _fail_saving(self) -> None:
        (self._server.directory / "dump.rdb" / "below").mkdir(parents=True)
        self._set("save", "3600 100000")
        self.admin.bgsave()
        until(lambda: self.admin.info("persistence")["rdb_last_bgsave_status"] == "err", "saving has failed")

    def _save(self) -> None:
        self._set("save", "")

    def _change_user(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", "default", *rules)
        self.disconnect_all()

    def _run_endless_script(self) -> None:
        def run() -> None:
            with contextlib.suppress(redis.RedisError), self._server.client as client:
                client.eval("while true do end", 0)

        threading.Thread(target=run, daemon=True).start()
        until(self._is_busy, "the script blocks the server")

    def _is_busy(self) -> bool:
        try:
            self.admin.get("x")
        except redis.ResponseError as fault:
            return "BUSY" in str(fault)
        return False

    def _kill_script(self) -> None:
        self.admin.script_kill()
        until(lambda: not self._is_busy(), "the script has ended")


@pytest.fixture
async def stores(own_redis: RedisServer) -> AsyncIterator[tuple[Store, Store]]:
    one, another = (open_store(f"{own_redis.url}?timeout=10&prefix=states") for _ in range(2))
    await one.open()
    await another.open()
    yield one, another
    await one.close()
    await another.close()


def record(version: int = 1) -> Record:
    return Record("grant", "key", b"body", version=version)


async def works(operation: Callable[[], Awaitable[object]]) -> bool:
    return await error(operation) is None


async def reports(operation: Callable[[], Awaitable[object]], reason: str) -> bool:
    return reason in (await error(operation) or "")


async def error(operation: Callable[[], Awaitable[object]]) -> str | None:
    try:
        await operation()
    except StoreUnavailable as fault:
        return fault.detail
    return None


async def test_each_state_is_reported_and_recovered_from(
    stores: tuple[Store, Store], own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("akoya_gateway.store.redis.store.WATCH_INTERVAL", 600.0)  # only the listener ends a wait
    one, another = stores
    assert await one.put(record())
    server = await asyncio.to_thread(Faulty, own_redis)
    for version, (name, state) in enumerate(server.states.items(), 1):
        await asyncio.to_thread(state.begin)
        # Not at once: the first command may find a connection that was closed.
        for operation in (partial(one.put, record(version + 1)), one.check):
            await until_async(partial(reports, operation, state.reason), f"{name} is reported")
        assert await works(partial(one.get, "grant", "key")) is state.reads, name
        await asyncio.to_thread(state.end)
        await until_async(partial(works, one.check), f"the store has recovered from {name}")
        assert await one.get("grant", "key") == record(version), "nothing was lost or written"
        waiting = asyncio.create_task(one.changed("grant", "key", version, timeout=120))
        await until_async(partial(works, partial(another.put, record(version + 1))), "the record is written")
        assert await asyncio.wait_for(waiting, 60) == record(version + 1), f"the listener is back after {name}"


async def test_check_of_a_cluster_finds_the_one_server_that_cannot_be_written(redis_cluster: Cluster) -> None:
    """Every owner with records on that server gets 503, so readiness must not depend on the server that is checked."""
    store = open_store(f"{redis_cluster.url}?timeout=10&prefix=full")
    await store.open()
    try:
        for server in redis_cluster.primaries:
            server.client.config_set("maxmemory", 1)
            try:
                for _ in range(3):
                    assert "memory is full" in (await error(store.check) or "")
            finally:
                server.client.config_set("maxmemory", 0)
            await store.check()
    finally:
        await store.close()
