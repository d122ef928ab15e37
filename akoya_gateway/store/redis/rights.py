"""Whether the user of the URL may run every command that the store needs, on every kind of key and channel.

A check that does less than the work finds nothing: a user with too few rights could start the gateway, was ready, and
every connect failed. So each command of the scripts and of the store is sent here once, outside of scripts, where the
server's refusal says which it was.
"""

from __future__ import annotations

import secrets
from typing import Any

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.redis.client import RedisClient, is_refusal, refused
from akoya_gateway.store.redis.keys import KeySchema
from akoya_gateway.store.redis.scripts import Call, Script

KIND = "pulse"
LIFE = 60_000
"""Milliseconds after which what a check that broke off has left is gone."""
NOTHING = Script.from_text("-- check\nreturn 1")

Command = tuple[Any, ...]


class CommandRefused(StoreUnavailable):
    """The server is reached and refuses a command that the store needs."""


async def require_rights(client: RedisClient, keys: KeySchema, where: str, ends: float, wait: int) -> None:
    """Raise `CommandRefused` for the first command that is refused; what the library raises, if the server is away.

    `ends`: Unix seconds, after which the next writer of the index removes what is left there. `wait`: of the URL.
    """
    name = secrets.token_hex(8)
    steps = [*commands(keys, name, ends), *([("WAIT", 0, 1)] if wait else [])]
    answers = await client.each(steps)
    answers.append(await client.try_listening(keys.channel(KIND, name)))
    steps.append(("SUBSCRIBE", keys.channel(KIND, name)))
    for command, answer in zip(steps, answers, strict=True):
        if isinstance(answer, Exception):
            raise CommandRefused(f"{where}: {refused(answer, command)}") if is_refusal(answer) else answer


def commands(keys: KeySchema, name: str, ends: float) -> list[Command]:
    """Every command of `scripts` and of the store, on a record, its index and its group, which are removed again."""
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
