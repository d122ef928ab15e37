"""Redis failures: down, stopped, restarted, failed over, full.

The store reports an error soon, never returns a wrong result, and recovers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from akoya_gateway.errors import OperatorError, StoreUnavailable
from akoya_gateway.store import Record, Store, describe, open_store
from akoya_gateway.store.redis.url import parse
from tests.support.redis_servers import Cluster, RedisOverTLS, RedisServer, SentinelGroup
from tests.support.waiting import until

RECOVERY = 30.0


def grant(key: str = "k1", **changes: object) -> Record:
    return Record(**{"kind": "grant", "key": key, "body": b"sealed", "group": "o", **changes})  # type: ignore[arg-type]


async def opened(url: str, timeout: float = 0.5) -> Store:
    """Open a store. The timeout is short, for tests in which the server stops responding."""
    store = open_store(f"{url}{'&' if '?' in url else '?'}timeout={timeout}&prefix=t{uuid.uuid4().hex[:12]}")
    await store.open()
    return store


async def recovered(operation: Callable[[], Awaitable[object]]) -> object:
    """Return the result of `operation` once the store has recovered."""
    deadline = time.monotonic() + RECOVERY
    while True:
        try:
            return await operation()
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it did not recover"
            await asyncio.sleep(0.1)


@pytest.fixture
async def redis(own_redis: RedisServer) -> AsyncIterator[Store]:
    store = await opened(own_redis.url)
    yield store
    await store.close()


async def test_pause_of_the_event_loop_is_no_fault_of_redis(redis: Store) -> None:
    """The response is in the socket after the pause, so the write must not be reported as failed."""
    await put_during_pauses(redis)


async def put_during_pauses(store: Store, pause: float = 0.6, after: tuple[int, ...] = (4, 6, 8)) -> None:
    """Pause for longer than the timeout of the store, after some turns of the event loop."""
    for turns in after:
        written = asyncio.create_task(store.put(grant(f"k{turns}")))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(pause)
        assert await written, f"a pause after {turns} turns"


async def every_verb_is_unavailable(store: Store) -> None:
    operations = [
        store.get("grant", "k1"),
        store.find("grant", "o"),
        store.put(grant("k2")),
        store.reseal(grant()),
        store.delete("grant", "k9"),
        store.take("grant", "k9"),
        store.count("grant"),
        store.kinds(),
        store.check(),
    ]
    outcomes = await asyncio.gather(*operations, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}, outcomes


async def test_unreachable_server_is_reported_at_startup(own_redis: RedisServer) -> None:
    own_redis.kill()
    with pytest.raises(StoreUnavailable, match="no connection"):
        await opened(own_redis.url)


async def test_reason_why_there_is_no_connection_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(StoreUnavailable) as refused:
        await opened("redis://127.0.0.1:1", timeout=10)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StoreUnavailable) as unresolved:
        await opened("redis://redis.internal:6379", timeout=10)
    assert "no connection: " in refused.value.detail
    assert "no connection: Name or service not known" in unresolved.value.detail
    # Nothing can have been sent.
    assert "may or may not" not in refused.value.detail + unresolved.value.detail


async def test_killed_server_is_unavailable_and_loses_nothing_that_it_acknowledged(
    redis: Store, own_redis: RedisServer
) -> None:
    assert await redis.put(grant())
    own_redis.kill()
    await every_verb_is_unavailable(redis)
    own_redis.start()
    assert await recovered(lambda: redis.get("grant", "k1")) == grant()
    assert await redis.put(grant(version=2)), "the server has forgotten the scripts, so they must be sent again"
    assert [r.version for r in await redis.find("grant", "o")] == [2]


async def test_stopped_server_is_unavailable_until_it_continues(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    own_redis.pause()
    try:
        await asyncio.wait_for(every_verb_is_unavailable(redis), 60)
    finally:
        own_redis.resume()
    assert await recovered(lambda: redis.get("grant", "k1")) == grant()


async def test_write_with_a_lost_response_is_not_sent_again(redis: Store, own_redis: RedisServer) -> None:
    """The stopped server has the command in its socket buffer and runs it later.

    A retry would return False, as if another writer had been first. The store raises an error instead, and the record
    shows what became of the write.
    """
    assert await redis.put(grant())
    own_redis.pause()
    with pytest.raises(StoreUnavailable, match="may or may not"):
        await redis.put(grant(body=b"new", version=2))
    own_redis.resume()
    await recovered(redis.check)
    kept = await redis.get("grant", "k1")
    assert kept in {grant(), grant(body=b"new", version=2)}


async def test_waiters_live_through_a_restart(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    own_redis.kill()
    own_redis.start()
    await recovered(redis.check)
    waiter = asyncio.create_task(redis.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.3)
    assert await redis.put(grant(version=2))
    assert await asyncio.wait_for(waiter, 60) == grant(version=2)


async def test_notice_that_never_comes_is_made_up_for(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    waiter = asyncio.create_task(redis.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.3)
    with own_redis.client as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert await redis.put(grant(version=2))
    assert await asyncio.wait_for(waiter, 60) == grant(version=2)


async def test_waiting_makes_few_reads(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    with own_redis.client as client:
        before = client.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
        await redis.changed("grant", "k1", 1, 2.0)
        after = client.info("commandstats")["cmdstat_get"]["calls"]
    assert after - before <= 6


async def test_server_that_forgets_its_scripts_is_taught_again(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    with own_redis.client as client:
        client.script_flush()
    assert await redis.put(grant(version=2))
    with own_redis.client as client:
        client.script_flush()
    assert (await redis.take("grant", "k1")) == grant(version=2)


async def test_full_memory_is_reported_and_recovered_from(redis: Store, own_redis: RedisServer) -> None:
    assert await redis.put(grant())
    with own_redis.client as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="memory is full"):
            await redis.put(grant(version=2))
        with pytest.raises(StoreUnavailable, match="memory is full"):
            await redis.check()
        assert await redis.get("grant", "k1") == grant()
        client.config_set("maxmemory", "0")
    assert await redis.put(grant(version=2))


async def test_server_that_cannot_keep_grants_is_warned_of(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with own_redis.client as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING):
        await (await opened(own_redis.url)).close()
    assert "append-only" in caplog.text
    assert "noeviction" in caplog.text


async def test_password_is_required_and_never_shown(own_redis: RedisServer) -> None:
    with own_redis.client as client:
        client.config_set("requirepass", "opensesame")
    url = f"redis://:wrongword@127.0.0.1:{own_redis.port}"
    with pytest.raises(StoreUnavailable, match="password was refused") as caught:
        await opened(url)
    assert "wrongword" not in str(caught.value)
    with pytest.raises(StoreUnavailable, match="password was refused"):
        await opened(own_redis.url)
    store = await opened(url.replace("wrongword", "opensesame"))
    assert await store.put(grant())
    await store.close()


async def test_certificate_of_another_host_is_refused(redis_tls: RedisOverTLS) -> None:
    with pytest.raises(StoreUnavailable, match="no connection"):
        await opened(redis_tls.url.partition("?")[0])
    plain = redis_tls.url.partition("?")[0].replace("rediss", "redis")
    with pytest.raises(StoreUnavailable):
        await opened(plain)


async def test_key_that_was_not_written_by_the_gateway_is_an_error(own_redis: RedisServer) -> None:
    store = open_store(f"{own_redis.url}?prefix=mine")
    await store.open()
    assert await store.put(grant())
    with own_redis.client as client:
        (name,) = client.keys("{mine:*}:grant:k1")
        client.set(name, b"short")
        with pytest.raises(StoreUnavailable):
            await store.get("grant", "k1")
        client.delete(name)
        client.lpush(name, "a list")
        with pytest.raises(StoreUnavailable):
            await store.get("grant", "k1")
    await store.close()


async def test_listing_without_a_record_is_passed_over_and_tidied_when_old(own_redis: RedisServer) -> None:
    store = open_store(f"{own_redis.url}?prefix=mine")
    await store.open()
    assert await store.put(grant())
    with own_redis.client as client:
        client.zadd("mine:group:grant:o", {"old": 1, "young": time.time()})
        assert [r.key for r in await store.find("grant", "o")] == ["k1"]
        assert client.zscore("mine:group:grant:o", "old") is None
        assert client.zscore("mine:group:grant:o", "young") is not None
        client.zadd("mine:group:grant:o", {"k1": 1})
        assert await store.put(grant(version=2))
        assert await store.delete("grant", "k1")
        assert client.zscore("mine:group:grant:o", "k1") is None, "deleting an old grant leaves no index entry"
    await store.close()


async def test_nothing_is_left_of_records_that_end(own_redis: RedisServer) -> None:
    store = open_store(f"{own_redis.url}?prefix=mine")
    await store.open()
    await asyncio.gather(*[store.put(grant(f"k{n}", expires_at=time.time() + 1)) for n in range(50)])
    with own_redis.client as client:
        names = [name for name in client.keys("mine:*") + client.keys("{mine:*") if b"pulse" not in name]
        records = [name for name in names if client.type(name) == b"string"]
        assert len(records) == 50
        assert all(0 < client.pttl(name) <= 1000 for name in records)
        assert 0 < client.pttl("mine:group:grant:o") <= 400_000
    await store.close()


async def test_wait_requires_replicas(own_redis: RedisServer) -> None:
    store = open_store(f"{own_redis.url}?timeout=1&wait=1")
    await store.open()
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await recovered_write(store)
    await recovered(store.check)  # users with valid tokens are served
    replica = RedisServer("--replicaof", "127.0.0.1", str(own_redis.port))
    with replica:
        assert await recovered(lambda: store.put(grant("k2")))
        assert replica.client.exists(*own_redis.client.keys("*:grant:k2"))
    await store.close()


async def test_failover_is_followed() -> None:
    with SentinelGroup() as group:
        store = await opened(group.url + "?wait=1")
        assert await store.put(grant())
        waiter = asyncio.create_task(store.changed("grant", "k1", 1, 60))
        group.primary.pause()
        with pytest.raises(StoreUnavailable):
            await store.put(grant("k2"))
        assert await recovered(lambda: store.get("grant", "k1")) == grant()
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await recovered_write(store)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        group.primary.resume()
        assert await recovered(lambda: store.put(grant("k3"))) in {True, False}
        assert await store.get("grant", "k3") == grant("k3")
        await store.close()


async def recovered_write(store: Store) -> None:
    """Try writes until the new primary, which has no replica yet, rejects one for that reason."""
    deadline = time.monotonic() + RECOVERY
    while time.monotonic() < deadline:
        try:
            await store.put(grant(f"w{time.monotonic_ns()}"))
        except StoreUnavailable as fault:
            if "replicas" in str(fault):
                raise
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("end", [RedisServer.kill, RedisServer.pause])
async def test_primary_of_a_cluster_that_ends_is_replaced_by_its_replica(end: Callable[[RedisServer], None]) -> None:
    with Cluster(replicas=True) as cluster:
        store = open_store(f"{cluster.url}?timeout=0.5&prefix=mine")
        await store.open()
        keys = [f"k{n}" for n in range(30)]
        for key in keys:
            assert await store.put(grant(key))
        await asyncio.to_thread(cluster.settled)
        # End the primary without the group index: `find` contacts it only in a pipeline, which must notice the failure.
        end(next(server for server in cluster.primaries if not server.client.keys("mine:group:*")))

        async def all_there() -> bool:
            return {r.key for r in await store.find("grant", "o")} == set(keys)

        assert await recovered(all_there)
        for key in keys:
            await recovered(partial(store.put, grant(key, version=2)))
            assert await recovered(partial(store.get, "grant", key)) == grant(key, version=2)
        assert await recovered(lambda: store.count("grant")) == 30
        await recovered(store.check)
        await store.close()


async def test_cluster_that_has_forgotten_its_slots_is_unavailable_until_it_has_them_again() -> None:
    """The state after a restart without `nodes.conf`."""
    with RedisServer("--cluster-enabled", "yes", and_bus=True) as server:
        url = f"redis+cluster://127.0.0.1:{server.port}"
        with pytest.raises(StoreUnavailable, match="slot"):
            await opened(url)
        server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: server.client.cluster("INFO")["cluster_state"] == "ok", "it serves")
        store = await opened(url)
        assert await store.put(grant())
        server.client.execute_command("CLUSTER", "DELSLOTS", *range(16384))
        await every_verb_is_unavailable(store)
        server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        await recovered(store.check)
        assert await store.put(grant(version=2))
        await store.close()


async def test_pause_of_the_event_loop_is_no_fault_of_a_cluster(redis_cluster: Cluster) -> None:
    store = await opened(redis_cluster.url, timeout=2)  # a cluster takes longer to open
    try:
        await put_during_pauses(store, pause=2.2, after=(4, 8))
    finally:
        await store.close()


async def test_slot_that_moves_is_followed() -> None:
    with Cluster() as cluster:
        store = await opened(cluster.url, timeout=10)
        keys = [f"k{n}" for n in range(40)]
        for key in keys:
            assert await store.put(grant(key))
        source, target = cluster.primaries[0].client, cluster.primaries[1].client
        ids = [str(c.execute_command("CLUSTER", "MYID"), "ascii") for c in (source, target)]
        for slot in sorted({source.execute_command("CLUSTER", "KEYSLOT", k) for k in source.keys("*")}):
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            for name in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                source.execute_command("MIGRATE", "127.0.0.1", cluster.primaries[1].port, name, 0, 5000)
            for client in (target, source):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        for key in keys:
            assert await store.put(grant(key, version=2))
        assert [r.version for r in await store.find("grant", "o")] == [2] * 40
        await store.close()


async def test_rights_that_the_guide_names_are_enough(own_redis: RedisServer) -> None:
    guide = Path("docs/stores.md").read_text()
    rule = guide[guide.index("ACL SETUSER") :].partition("```")[0]
    with own_redis.client as client:
        client.execute_command(*rule.replace(">PASSWORD", ">secret").split())
        client.execute_command("ACL", "SETUSER", "default", "off")
    store = open_store(f"redis://akoya:secret@127.0.0.1:{own_redis.port}")
    await store.open()
    assert await store.put(grant())
    waiter = asyncio.create_task(store.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.2)
    assert await store.put(grant(version=2, expires_at=time.time() + 100))
    assert (await waiter).version == 2  # type: ignore[union-attr]
    assert await store.reseal(grant(version=2, body=b"new"))
    assert len(await store.find("grant", "o")) == await store.count("grant") == 1
    assert await store.kinds() == ("grant",)
    assert len([r async for r in store.scan("grant")]) == 1
    assert await store.delete("grant", "k1", 2)
    assert await store.take("grant", "k1") is None
    await store.check()
    await store.close()


TAKER = """
import asyncio, sys
from akoya_gateway.store import open_store

async def main(url, number):
    store = open_store(url)
    await store.open()
    for n in range(int(number)):
        if await store.take("attempt", f"a{n}") is not None:
            print(n, flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_several_processes_that_take_exactly_one_gets_each(own_redis: RedisServer) -> None:
    url = f"{own_redis.url}?prefix=race&timeout=10"
    store = open_store(url)
    await store.open()
    await asyncio.gather(*[store.put(Record("attempt", f"a{n}", b"x")) for n in range(200)])
    processes = [
        subprocess.Popen([sys.executable, "-c", TAKER, url, "200"], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [await asyncio.to_thread(process.communicate, timeout=60) for process in processes]
    assert sorted(int(n) for output, _ in outputs for n in output.split()) == list(range(200))
    assert await store.count("attempt") == 0
    await store.close()


@pytest.mark.parametrize("calls", [1, 16, 40])
async def test_store_is_closed_at_once_though_all_its_places_are_taken_by_calls_that_hang(
    own_redis: RedisServer, calls: int
) -> None:
    store = await opened(own_redis.url, timeout=2.0)
    others = own_redis.client
    own_redis.pause()
    try:
        before = [asyncio.create_task(store.get("grant", "k1")) for _ in range(calls)]
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        behind = [asyncio.create_task(store.get("grant", "k1")) for _ in range(calls)]
        done, _ = await asyncio.wait({closing}, timeout=1.0)
        assert done, "it waits for a call that hangs"
        await closing
        for outcome in await asyncio.gather(*before, *behind, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
    finally:
        own_redis.resume()
    await asyncio.sleep(0.1)
    assert len(others.client_list()) == 1, "a connection is left open"
    others.close()


async def test_closed_store_raises_and_releases_its_waiters(own_redis: RedisServer) -> None:
    store = await opened(own_redis.url)
    assert await store.put(grant())
    waiter = asyncio.create_task(store.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.2)
    await store.close()
    for operation in (waiter, store.get("grant", "k1")):
        with pytest.raises(StoreUnavailable, match="closed"):
            await asyncio.wait_for(operation, 60)
    with own_redis.client as client:
        assert {c["cmd"] for c in client.client_list()} <= {"client|list", "client"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://a,b", "sentinel"),
        ("redis://a/x", "number of a database"),
        ("redis://a:port", "host:port"),
        ("redis://:hunter2/x@a", "percent-encoded"),
        ("redis://:57#hunter2@a", "percent-encoded"),
        ("redis://a?hunter2@b", "percent-encoded"),
        ("redis://:57", "host:port"),
        ("redis:///0", "host:port"),
        ("redis://a:0", "1 to 65535"),
        ("redis://a:65536", "1 to 65535"),
        ("redis://a?HUNTER2hunter2", "no option of that name"),
        ("hunter2", "unknown scheme '\u2026'"),
        ("redis+sentinel://a", "name the service"),
        ("redis+cluster://a/1", "database 0"),
        ("redis+cluster://a?wait=1", "min-replicas-to-write"),
        ("redis://a?tiemout=1", "no option 'tiemout'"),
        ("redis://a?timeout=soon", "timeout must be"),
        ("redis://a?prefix={x}", "prefix may hold"),
        ("mysql://u:hunter2@a", "unknown scheme 'mysql'"),
        ("sqlite://", "needs a file"),
    ],
)
def test_impossible_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://u:hunter2@h:1/2?timeout=1&sentinel_password=hunter2", "redis://h:1/2"),
        ("redis+sentinel://:hunter2@a:1,b:2/s/0", "redis+sentinel://a:1,b:2/s/0"),
        ("valkeys://u:hunter2%40x@h", "valkeys://h"),
        ("redis://u:hun@ter2@h", "redis://\u2026"),
        ("redis://:hunter2#@h", "redis://\u2026"),
        ("redis://:57#hunter2@h", "redis://\u2026"),
        ("redis://:hunter2/0@h:1/0", "redis://\u2026"),
        ("redis://hunter2?x@h:1/0", "redis://\u2026"),
        ("rediss+sentinel://hunter2%@h/s", "rediss+sentinel://\u2026"),
        ("redis://a:b:c@[::1]:7/0", "redis://[::1]:7/0"),
        ("hunter2", "\u2026://\u2026"),
        ("hunter2:h", "\u2026://\u2026"),
        ("sqlite:///var/lib/x.db", "sqlite:/var/lib/x.db"),
        ("sqlite:x.db", "sqlite:x.db"),
        ("memory://", "memory://"),
    ],
)
def test_description_holds_no_password(url: str, expected: str) -> None:
    assert describe(url) == expected


def test_address_is_parsed_with_its_escapes_decoded_once() -> None:
    url = parse("rediss+sentinel://us%40er:p%2Fa:%2541@a:1,[::1],c.example/my/3?sentinel_password=x%26y&ca=/etc/ca.pem")
    assert url.hosts == (("a", 1), ("::1", 26379), ("c.example", 26379))
    assert (url.username, url.service, url.database, url.tls) == ("us@er", "my", 3, True)
    assert url.password is not None
    assert url.password.reveal() == "p/a:%41"
    assert url.sentinel_password is not None
    assert url.sentinel_password.reveal() == "x&y"
    assert url.ca == "/etc/ca.pem"
    assert url.where == "rediss+sentinel://a:1,[::1],c.example/my/3"


async def test_valkey_url_is_accepted_as_redis(own_redis: RedisServer) -> None:
    store = open_store(own_redis.url.replace("redis", "valkey"))
    await store.open()
    assert await store.put(grant())
    await store.close()
