"""Checks that the Redis user may run every command that the store needs, on every kind of key and channel.

A check that uses fewer commands than the store would miss a missing right: the gateway would start and report ready,
but every connect would fail. Each command of the scripts and of the store is therefore sent once by itself, outside
scripts, where the server's error says which command was rejected.
"""

from __future__ import annotations

import secrets
from typing import Any

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.redis.client import RedisClient
from akoya_gateway.store.redis.keys import KeySchema
from akoya_gateway.store.redis.scripts import Call, Script
from akoya_gateway.store.redis.server_errors import is_refusal, refused

KIND = "pulse"
LIFE = 60_000
"""Milliseconds after which Redis removes what an interrupted check has left behind."""
NOTHING = Script.from_text("-- check\nreturn 1")

Command = tuple[Any, ...]


class CommandRefused(StoreUnavailable):
    """The server responded and rejected a command that the store needs."""


async def require_rights(client: RedisClient, keys: KeySchema, where: str, ends: float, wait: int) -> None:
    """Send every command and raise `CommandRefused` for the first that is rejected.

    Raises what the client library raises if the server is unreachable.

    Args:
        client: The client to check.
        keys: The key schema.
        where: The server as error messages name it.
        ends: Unix seconds after which the next writer removes an entry left in the index.
        wait: The `wait` option of the URL.
    """
    name = secrets.token_hex(8)
    steps = [*commands(keys, name, ends), *([("WAIT", 0, 1)] if wait else [])]
    results = await client.each(steps)
    results.append(await client.try_listening(keys.channel(KIND, name)))
    steps.append(("SUBSCRIBE", keys.channel(KIND, name)))
    for command, result in zip(steps, results, strict=True):
        if isinstance(result, Exception):
            raise CommandRefused(f"{where}: {refused(result, command)}") if is_refusal(result) else result


def commands(keys: KeySchema, name: str, ends: float) -> list[Command]:
    """Return every command of `scripts` and of the store.

    They use a record, its index and its group, and remove all three at the end.
    """
    record, index, group = keys.record(KIND, name), keys.index(KIND, name), keys.group(KIND, name)
    nothing = Call(NOTHING, (record, index), ())
    return [
        nothing.whole,
        nothing.by_digest,
        ("SET", record, "1", "PX", LIFE),
        ("GET", record),
        ("MGET", record),
        ("GETRANGE", record, 0, 15),
        ("ZADD", index, repr(ends), name),
        ("ZCARD", index),
        ("ZCOUNT", index, "-inf", "+inf"),
        ("ZSCAN", index, 0),
        ("ZREMRANGEBYSCORE", index, "-inf", "(-inf"),
        ("ZADD", group, 0, name),
        ("PTTL", group),
        ("PERSIST", group),
        ("PEXPIRE", group, LIFE),
        ("ZSCORE", group, name),
        ("ZRANGE", group, 0, -1),
        ("ZREM", group, name),
        ("ZREM", index, name),
        ("DEL", record),
        ("TIME",),
        ("PUBLISH", keys.channel(KIND, name), ""),
    ]
