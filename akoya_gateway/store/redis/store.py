"""Store in Redis or Valkey: compare-and-set by server-side scripts, change notifications by pub/sub."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from akoya_gateway.clock import Clock
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.base import Record, StoreSize
from akoya_gateway.store.change_notifier import ChangeNotifier, wait_until_changed
from akoya_gateway.store.redis import scripts
from akoya_gateway.store.redis.client import CommandLimiter, RedisClient, TooFewReplicas, connect
from akoya_gateway.store.redis.keys import SHARDS, KeySchema, pack, unpack
from akoya_gateway.store.redis.pubsub import ChangeSubscriber
from akoya_gateway.store.redis.rights import KIND, LIFE, CommandRefused, require_rights
from akoya_gateway.store.redis.scripts import Call
from akoya_gateway.store.redis.url import RedisURL, Topology, check_files, parse

GRACE_SECONDS = 120
"""Seconds for which a key without a record stays in its group; see `scripts.UNLIST`."""
WATCH_INTERVAL = 1.0
"""Approximate seconds after which a waiter reads again without a notification.

Redis does not guarantee the delivery of pub/sub messages.
"""
PAGE = 200

_log = logging.getLogger("akoya_gateway.store")


class RedisStore:
    """The store of `redis://` and the related schemes. Call `open` on the event loop that will use it."""

    _client: RedisClient
    _limiter: CommandLimiter
    _subscriber: ChangeSubscriber

    def __init__(self, url: RedisURL, clock: Clock = time.time) -> None:
        self._url = url
        self._clock = clock
        self._keys = KeySchema(url.prefix)
        self._changes = ChangeNotifier()

    @classmethod
    def from_url(cls, url: str, clock: Clock = time.time) -> RedisStore:
        """Create a store from its URL. Raises `OperatorError` if the URL is invalid."""
        return cls(parse(url), clock)

    async def open(self) -> None:
        check_files(self._url)
        self._limiter = CommandLimiter(self._url)
        self._client = connect(self._url)
        self._subscriber = ChangeSubscriber(self._client, self._keys, self._changes)
        try:
            await self._begin()
            await self._warn()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._subscriber.stop()
        # Bypass the limiter: hanging calls may hold all its slots.
        self._limiter.close()
        with contextlib.suppress(Exception):  # nothing can be done about it, and the process is exiting
            await self._client.close()
        self._changes.notify_all()

    async def _begin(self) -> None:
        """Check the store at startup.

        An unreachable server prevents the start. A server that rejects a command, or has too few replicas, only causes
        an error log: the operator can correct that while the gateway runs.
        """
        try:
            await self._work()
        except (CommandRefused, TooFewReplicas) as fault:
            _log.error("the store cannot be used: %s", fault.detail)

    async def check(self) -> None:
        """Exercise the operations that the store needs.

        Too few replicas for `wait` are not an error here. The store can still be read, so users with valid tokens are
        served, and every other gateway has the same problem.
        """
        with contextlib.suppress(TooFewReplicas):
            await self._work()

    async def _work(self) -> None:
        """Send each command on each kind of key and channel, then write a record and delete it."""
        ends = self._clock() + LIFE / 1000
        async with self._limiter.slot():
            await require_rights(self._client, self._keys, self._url.where, ends, self._url.wait)
        key = secrets.token_hex(8)
        # Without a group: a group entry without a record would stay listed for a while.
        await self.put(Record(KIND, key, b"", expires_at=ends))
        await self.delete(KIND, key)
        if self._url.topology is Topology.CLUSTER:
            await self._write_to_each_server(key)

    async def _write_to_each_server(self, key: str) -> None:
        """Write and delete a value in 32 shards, which are on all servers of a cluster.

        A server that is full or read-only can still be read. The commands may be sent twice.
        """
        keys = [f"{self._keys.shard(KIND, n)}:{key}" for n in range(0, SHARDS, 8)]
        await self._read([("SET", each, "1", "PX", LIFE) for each in keys])
        await self._read([("DEL", each) for each in keys])

    async def get(self, kind: str, key: str) -> Record | None:
        return self._live(kind, key, (await self._read([("GET", self._keys.record(kind, key))]))[0])

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        if not group:
            return ()
        (listed,) = await self._read([("ZRANGE", self._keys.group(kind, group), 0, -1)])
        if not listed:
            return ()
        keys = sorted(key.decode() for key in listed)
        values = await self._read([("GET", self._keys.record(kind, key)) for key in keys])
        found = {key: self._live(kind, key, value) for key, value in zip(keys, values, strict=True)}
        vain = [key for key, record in found.items() if record is None or record.group != group]
        if vain:
            await self._remove_from_index(kind, group, vain)
        return tuple(record for record in found.values() if record is not None and record.group == group)

    async def put(self, record: Record) -> bool:
        name = (record.kind, record.key)
        now = self._clock()
        life = "" if record.expires_at is None else max(0, math.ceil((record.expires_at - now) * 1000))
        end = "" if record.expires_at is None else repr(record.expires_at)
        put = Call(
            scripts.PUT,
            (self._keys.record(*name), self._keys.index(*name)),
            (record.key, record.version, repr(now), life, end, pack(record), self._keys.channel(*name)),
        )
        calls = [put]
        if record.group:
            listed = "" if life == "" else int(life) + GRACE_SECONDS * 1000
            group = self._keys.group(record.kind, record.group)
            calls.insert(0, Call(scripts.LIST, (group,), (record.key, listed, int(record.version == 1))))
        done = (await self._run(*calls))[-1]
        return bool(done)

    async def reseal(self, record: Record) -> bool:
        key = self._keys.record(record.kind, record.key)
        (done,) = await self._run(Call(scripts.RESEAL, (key,), (record.version, repr(self._clock()), record.body)))
        return bool(done)

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        return await self._remove(kind, key, version, with_body=False) is not None

    async def take(self, kind: str, key: str) -> Record | None:
        return await self._remove(kind, key, None, with_body=True)

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        name = (kind, key)
        with self._changes.subscribe(name) as bell:
            await self._subscriber.subscribe(name)
            try:
                return await wait_until_changed(
                    self.get,
                    bell,
                    name,
                    version=version,
                    timeout=timeout,
                    clock=self._clock,
                    poll_interval=WATCH_INTERVAL * random.uniform(0.8, 1.2),  # noqa: S311  # load spreading, not security
                )
            finally:
                await self._subscriber.unsubscribe(name)

    async def count(self, kind: str, group: str | None = None) -> int:
        if group is not None:
            return len(await self.find(kind, group))
        after = f"({self._clock()!r}"
        counts = await self._read([("ZCOUNT", self._keys.shard(kind, n), after, "+inf") for n in range(SHARDS)])
        return sum(counts)

    async def size(self) -> StoreSize | None:
        """Return the memory of the server and its `maxmemory`. None for a cluster, where each server has its own."""
        if self._url.topology is Topology.CLUSTER:
            return None
        try:
            (memory,) = await self._read([("INFO", "memory")])
        except StoreUnavailable:
            return None
        limit = memory.get("maxmemory", 0)
        return StoreSize(memory["used_memory"], limit) if limit else None

    async def kinds(self) -> tuple[str, ...]:
        """Return every kind that has records, found by scanning all keys of the servers.

        There is no separate list of kinds, because a writer could forget to update it.
        """
        found: set[str] = set()
        after = f"({self._clock()!r}"
        try:
            async for index in self._client.indexes(self._keys.indexes):
                kind = index.rpartition(b"}:")[2].decode()
                if kind not in found and kind != KIND and (await self._read([("ZCOUNT", index, after, "+inf")]))[0]:
                    found.add(kind)
        except StoreUnavailable:
            raise
        except Exception as fault:
            raise self._limiter.translated_errors(fault) from fault
        return tuple(sorted(found))

    async def scan(self, kind: str) -> AsyncIterator[Record]:
        """Yield the live records of a kind, shard by shard.

        To skip duplicates of ZSCAN it keeps the keys of one shard in memory, a 256th of all keys.
        """
        sizes = await self._read([("ZCARD", self._keys.shard(kind, n)) for n in range(SHARDS)])
        for shard in (n for n in range(SHARDS) if sizes[n]):
            seen: set[bytes] = set()
            cursor: Any = 0
            while True:
                ((cursor, members),) = await self._read(
                    [("ZSCAN", self._keys.shard(kind, shard), cursor, "COUNT", PAGE)]
                )
                keys = [key for key, _ in members if key not in seen]
                seen.update(keys)
                for record in await self._page(kind, [key.decode() for key in keys]):
                    yield record
                if int(cursor) == 0:
                    break

    async def _page(self, kind: str, keys: list[str]) -> list[Record]:
        """Return records of one shard. A shard is in one cluster slot, so one MGET reads them all."""
        if not keys:
            return []
        (values,) = await self._read([("MGET", *[self._keys.record(kind, key) for key in keys])])
        records = [self._live(kind, key, value) for key, value in zip(keys, values, strict=True)]
        return [record for record in records if record is not None]

    async def _remove(self, kind: str, key: str, version: int | None, *, with_body: bool) -> Record | None:
        (packed,) = await self._run(
            Call(
                scripts.REMOVE,
                (self._keys.record(kind, key), self._keys.index(kind, key)),
                (
                    key,
                    "" if version is None else version,
                    repr(self._clock()),
                    self._keys.channel(kind, key),
                    int(with_body),
                ),
            )
        )
        if packed is None:
            return None
        record = unpack(kind, key, packed)
        await self._remove_from_index(kind, record.group, [key])
        return record

    async def _remove_from_index(self, kind: str, group: str, keys: list[str]) -> None:
        """Remove keys without a record from their group.

        A failure is ignored: the next reader of the group tries again.
        """
        if not group:
            return
        with contextlib.suppress(StoreUnavailable):
            await self._run(Call(scripts.UNLIST, (self._keys.group(kind, group),), (GRACE_SECONDS, *keys)))

    def _live(self, kind: str, key: str, packed: bytes | None) -> Record | None:
        if packed is None:
            return None
        record = unpack(kind, key, packed)
        return None if record.expires_at is not None and record.expires_at <= self._clock() else record

    async def _run(self, *calls: Call) -> list[Any]:
        async with self._limiter.slot():
            return await self._client.run(calls)

    async def _read(self, commands: Any) -> list[Any]:
        async with self._limiter.slot():
            return await self._client.read(list(commands))

    async def _warn(self) -> None:
        """Log settings of the server that can lose grants. Skipped if the user may not run INFO."""
        try:
            persistence, memory = await self._read([("INFO", "persistence"), ("INFO", "memory")])
        except StoreUnavailable:
            return
        if persistence.get("aof_enabled") == 0:
            _log.warning("%s has no append-only file, a restart loses grants: set appendonly yes", self._url.where)
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            _log.warning("%s evicts (%s): grants may vanish; set noeviction", self._url.where, policy)
