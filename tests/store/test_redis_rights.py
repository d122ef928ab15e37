"""The check detects a Redis user with too few permissions and names what was denied, before users are affected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from akoya_gateway import Gateway
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import Record, open_store
from akoya_gateway.store.redis import scripts
from akoya_gateway.store.redis.keys import KeySchema
from akoya_gateway.store.redis.rights import CommandRefused, commands
from tests.support.config_documents import validated
from tests.support.redis_servers import RedisServer

NEEDED = sorted({command[0] for command in commands(KeySchema("akoya"), "x", 0.0)} | {"SUBSCRIBE"})


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def user(server: RedisServer, name: str, rights: str) -> str:
    """Return the store URL for a Redis user with these permissions."""
    with server.client as client:
        client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rights.split())
    return f"redis://{name}:secret@127.0.0.1:{server.port}/0"


def test_check_sends_every_command_of_the_scripts_and_of_the_store() -> None:
    lua = "".join(value.text for value in vars(scripts).values() if isinstance(value, scripts.Script))
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", lua))
    source = Path("akoya_gateway/store/redis/store.py").read_text()
    used |= set(re.findall(r'\("([A-Z]{3,})"', source)) - {"INFO"}
    assert used - {"EVALSHA"} <= set(NEEDED)


@pytest.mark.parametrize("command", NEEDED)
async def test_command_that_the_user_may_not_run_is_named(server: RedisServer, command: str) -> None:
    store = open_store(user(server, f"without-{command.lower()}", f"~* &* +@all -{command.lower()}"))
    await store.open()
    with pytest.raises(CommandRefused, match=f"may not run `{command}`"):
        await store.check()
    await store.close()


@pytest.mark.parametrize(
    ("rights", "named"),
    [
        ("~akoya* &* +@all", r"the key \{akoya:\d+\}:pulse:\w+ \(`EVAL`\)"),
        ("~{akoya:* &* +@all", r"the key akoya:group:pulse:\w+ \(`ZADD`\)"),
        ("~* resetchannels +@all", r"the channel akoya:changed:pulse:\w+ \(`PUBLISH`\)"),
        ("~* &* +@all -@scripting", "may not run `EVAL`"),
    ],
)
async def test_keys_and_channels_that_the_user_may_not_use_are_named(
    server: RedisServer, rights: str, named: str
) -> None:
    store = open_store(user(server, "keymaster-of-channels", rights))
    await store.open()
    with pytest.raises(CommandRefused, match=named):
        await store.check()
    await store.close()


async def test_start_with_missing_rights_is_reported_and_recovers_when_they_are_granted(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(user(server, "growing", "~akoya* &* +@all"))
    await store.open()
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "the user may not use the key {akoya:" in message
    assert "secret" not in message
    user(server, "growing", "~* &* +@all")
    await store.check()
    assert await store.put(Record("grant", "k", b"sealed"))
    await store.close()


async def test_readiness_names_what_is_refused_while_requests_get_503(server: RedisServer, tmp_path: Path) -> None:
    config = validated(tmp_path, {"sessions.store": "memory://"}).config
    assert config is not None
    sessions = replace(config.sessions, store=user(server, "unready", "~akoya* &* +@all"))
    gateway = Gateway(nothing, replace(config, sessions=sessions))
    runtime = await gateway.startup()
    (problem,) = await runtime.check()
    assert "the user may not use the key {akoya:" in problem
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="https://app.example.com") as http:
        assert (await http.get("/akoya/connect/mikomo")).status_code == 503
        user(server, "unready", "~* &* +@all")
        assert await runtime.check() == []
        assert (await http.get("/akoya/connect/mikomo")).status_code == 302
    await gateway.shutdown()


async def nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError("no request may get here")


async def test_refusal_while_working_names_the_command_too(server: RedisServer) -> None:
    url = user(server, "shrinking", "~* &* +@all")
    store = open_store(url)
    await store.open()
    for taken, named in (
        ("-zadd", "`ZADD`|a command that a script needs"),
        ("-evalsha", "`EVALSHA`"),
        ("resetchannels", "a channel"),
        ("resetkeys", "a key"),
    ):
        user(server, "shrinking", f"~* &* +@all {taken}")
        with pytest.raises(StoreUnavailable, match=named):
            await store.put(Record("grant", f"k{taken}", b"sealed", group="o"))
    await store.close()


async def test_server_without_scripting_is_named() -> None:
    with RedisServer("--rename-command", "EVAL", "") as server:
        store = open_store(server.url)
        await store.open()
        with pytest.raises(CommandRefused, match="does not know the command `EVAL`"):
            await store.check()
        await store.close()


async def test_check_leaves_nothing_behind_and_its_connections_as_they_were(server: RedisServer) -> None:
    store = open_store(f"redis://127.0.0.1:{server.port}/0?prefix=clean")
    await store.open()
    for _ in range(20):
        await store.check()
        assert await store.get("grant", "none") is None
    with server.client as client:
        assert client.keys("*clean*") == []
        assert client.execute_command("PUBSUB", "CHANNELS", "clean:*") == []
    assert await store.kinds() == ()
    await store.close()
