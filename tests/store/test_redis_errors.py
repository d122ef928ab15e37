"""Errors that a Redis server sends: every one is a store error that names the cause and the remedy, and no data."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import Record
from akoya_gateway.store.redis.client import CommandLimiter, connect
from akoya_gateway.store.redis.scripts import PUT, Call
from akoya_gateway.store.redis.server_errors import error_text
from akoya_gateway.store.redis.store import RedisStore
from akoya_gateway.store.redis.url import parse

REMEDIES = {
    "READONLY You can't write against a read only replica.": "it is a replica now",
    "LOADING Redis is loading the dataset in memory": "loading its data",
    "OOM command not allowed when used memory > 'maxmemory'.": "raise maxmemory",
    "ERR Error running script (call to f_1): @user_script:1: -OOM secret-data": "raise maxmemory",
    "MOVED 3999 127.0.0.1:6381": "redis+cluster://",
    "ASK 3999 127.0.0.1:6381": "redis+cluster://",
    "TRYAGAIN Multiple keys request during rehashing of slot": "moving a slot",
    "BUSY Redis is busy running a script.": "a script of another program",
    "MISCONF Redis is configured to save RDB snapshots": "cannot save to its disk",
    "NOREPLICAS Not enough good replicas to write.": "min-replicas-to-write",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "choose another prefix",
    "DENIED Redis is running in protected mode": "protected mode",
    "NOAUTH Authentication required.": "the user or password was refused",
    "WRONGPASS invalid username-password pair or user is disabled.": "the user or password was refused",
    "ERR Protocol error: unauthenticated multibulk length": "the user or password was refused",
    "ERR AUTH <password> called without any password configured for the default user.": "it has no password",
    "NOPERM this user has no permissions to run the 'eval' command": "the user may not run `EVAL`",
    "ERR unknown command 'EVALSHA'": "does not know the command `EVALSHA`",
    "ERR max number of clients reached": "raise its maxclients",
    "ERR SELECT is not allowed in cluster mode": "redis+cluster://",
    "ERR DB index is out of range": "no database of this number",
    "NOPROTO unsupported protocol version": "Redis 6.2 or newer",
    "ERR secret-data quoted from a command": "a command was refused",
}


async def read_command(reader: asyncio.StreamReader) -> None:
    for _ in range(int((await reader.readline())[1:])):
        await reader.readexactly(int((await reader.readline())[1:]) + 2)


async def test_error_of_the_server_is_explained_without_its_text() -> None:
    errors = list(REMEDIES)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while True:
                await read_command(reader)
                writer.write(f"-{errors[0]}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = parse(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?timeout=20")
    while errors:
        store = RedisStore(url)
        store._limiter, store._client = CommandLimiter(url), connect(url)
        with pytest.raises(StoreUnavailable) as read:
            await store.get("kind", "key")
        with pytest.raises(StoreUnavailable) as written:
            await store.put(Record("kind", "key", b"x"))
        await store._client.close()
        for text in (str(read.value), str(written.value)):
            assert REMEDIES[errors[0]] in text
            assert "secret-data" not in text
        errors.pop(0)
    server.close()


async def test_lost_response_after_a_missing_script_is_not_described_as_a_refusal() -> None:
    """After a restart of a cluster the script is sent again. Whether that was executed is unknown then."""
    outcomes: list[Exception] = [NoScriptError("No matching script"), RedisTimeoutError("no response")]

    class Cluster:
        async def execute_command(self, *command: object) -> None:
            raise outcomes.pop(0)

    client: Any = connect(parse("redis+cluster://127.0.0.1:1/0"))
    client._client = Cluster()
    with pytest.raises(RedisTimeoutError) as lost:
        await client.run([Call(PUT, ("key",), ())])
    assert error_text(lost.value) == "no response in time; the command may or may not have been executed"
