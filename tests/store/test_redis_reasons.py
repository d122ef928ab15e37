"""Why Redis cannot be used: the reason that the system, TLS, the server or a sentinel gives is reported, and no secret."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from akoya_gateway.errors import GatewayError, OperatorError
from akoya_gateway.store import open_store
from akoya_gateway.store.redis.url import check_files, parse, with_files_below
from tests.support.certificates import Authority
from tests.support.redis_servers import RedisServer, SentinelGroup
from tests.support.waiting import until

OPTIONS = "timeout=10&prefix=reasons"


async def reason(url: str) -> str:
    """Return why the store cannot be opened."""
    store = open_store(url)
    with pytest.raises(GatewayError) as raised:
        await store.open()
    assert "hunter2" not in raised.value.detail
    return raised.value.detail


@contextlib.asynccontextmanager
async def scripted(reply: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yield the port of a server that sends the same bytes to every client and closes the connection."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readline()
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_reason_why_tls_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    contexts = []
    for expired in (False, True):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(*authority.issue(f"server-{expired}", expired=expired))
    async with scripted(b"", contexts[0]) as valid, scripted(b"", contexts[1]) as expired_port:
        for server, expected in {
            f"rediss://127.0.0.1:{expired_port}/?ca={authority.file}": "certificate has expired",
            f"rediss+cluster://127.0.0.1:{expired_port}/?ca={authority.file}": "certificate has expired",
            f"rediss+sentinel://127.0.0.1:{expired_port}/akoya?ca={authority.file}": "certificate has expired",
            f"rediss://127.0.0.1:{valid}/?ca={other.file}": "certificate is not accepted: unable to get local issuer",
            f"rediss://localhost:{valid}/?ca={authority.file}": "not valid for 'localhost'",
        }.items():
            text = await reason(f"{server}&{OPTIONS}")
            assert "no connection: " in text
            assert expected in text, text
            assert "may or may not" not in text


async def test_reason_of_what_is_not_a_redis_server_is_reported() -> None:
    async with (
        scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n") as http,
        scripted(b"-DENIED Redis is running in protected mode hunter2\r\n") as protected,
        scripted(b"") as closing,
    ):
        assert "does not speak the protocol of Redis" in await reason(f"redis://127.0.0.1:{http}/?{OPTIONS}")
        assert "protected mode; set a password" in await reason(f"redis://127.0.0.1:{protected}/?{OPTIONS}")
        assert "the connection was closed" in await reason(f"redis://127.0.0.1:{closing}/?{OPTIONS}")


async def test_reason_why_a_cluster_cannot_be_used_is_reported(redis_server: RedisServer) -> None:
    assert "no connection: Connection refused" in await reason(f"redis+cluster://127.0.0.1:1/?{OPTIONS}")
    single = f"redis+cluster://127.0.0.1:{redis_server.port}/?{OPTIONS}"
    assert "it is not part of a cluster; use redis://" in await reason(single)
    with_user = f"redis+cluster://user:hunter2@127.0.0.1:{redis_server.port}/?{OPTIONS}"
    assert "the user or password was refused" in await reason(with_user)


async def test_server_with_too_many_clients_is_named(own_redis: RedisServer) -> None:
    with own_redis.client as client, contextlib.ExitStack() as opened:
        client.config_set("maxclients", 3)

        def is_full() -> bool:
            opened.enter_context(socket.create_connection(("127.0.0.1", own_redis.port)))
            return bool(client.info("clients")["connected_clients"] == 3)

        # Twice, because the server may only now close a connection whose client has left.
        until(lambda: is_full() and is_full(), "the server has all its clients")
        assert "too many clients; raise its maxclients" in await reason(f"{own_redis.url}?{OPTIONS}")


async def test_reason_why_sentinels_name_no_primary_is_reported(
    redis_server: RedisServer, redis_sentinel: SentinelGroup
) -> None:
    hosts = redis_sentinel.url.partition("://")[2].partition("/")[0]
    assert "the sentinels do not know the service `other`" in await reason(f"redis+sentinel://{hosts}/other?{OPTIONS}")
    text = await reason(f"redis+sentinel://127.0.0.1:1/akoya?{OPTIONS}&sentinel_password=hunter2")
    assert "no sentinel can be used; 127.0.0.1:1: no connection: Connection refused" in text
    text = await reason(f"redis+sentinel://127.0.0.1:{redis_server.port}/akoya?{OPTIONS}")
    assert "does not know the command `SENTINEL`" in text


async def test_sentinel_that_responds_with_an_error_does_not_stop_the_others(
    redis_server: RedisServer, redis_sentinel: SentinelGroup
) -> None:
    """The first server of the list is no sentinel. It used to end the search for the primary."""
    hosts = redis_sentinel.url.partition("://")[2].partition("/")[0]
    store = open_store(f"redis+sentinel://127.0.0.1:{redis_server.port},{hosts}/{redis_sentinel.service}?{OPTIONS}")
    await store.open()
    await store.check()
    await store.close()


def test_tls_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    (tmp_path / "empty.pem").touch()
    for options, expected in {
        f"ca={tmp_path}/none.pem": f"`ca` {tmp_path}/none.pem does not exist",
        f"ca={tmp_path}": f"`ca` {tmp_path} does not exist or cannot be read",
        f"ca={tmp_path}/empty.pem": "empty.pem has no certificate in PEM",
        f"certificate={certificate}&key={authority.issue('another')[1]}": "`certificate` and `key` are not PEM, not a pair",
        f"key={key}": "`key` needs `certificate`",
    }.items():
        with pytest.raises(OperatorError) as raised:
            check_files(parse(f"rediss://:hunter2@cache/0?{options}"))
        assert expected in raised.value.detail
        assert "hunter2" not in raised.value.detail
    with pytest.raises(OperatorError, match="`ca` is for TLS: use a scheme such as rediss://"):
        check_files(parse(f"redis://cache/0?ca={authority.file}"))
    check_files(parse(f"rediss://cache/0?ca={authority.file}&certificate={certificate}&key={key}"))


def test_relative_tls_file_is_beside_the_configuration() -> None:
    url = with_files_below("rediss://:a%2Fb@cache/0?ca=tls/a%20b.pem&timeout=3&key=/etc/k.pem", Path("/etc/akoya"))
    parsed = parse(url)
    assert (parsed.ca, parsed.key, parsed.timeout) == ("/etc/akoya/tls/a b.pem", "/etc/k.pem", 3.0)
    assert parsed.password is not None
    assert parsed.password.reveal() == "a/b"
    assert with_files_below("redis://cache/0?timeout=3", Path("/etc")) == "redis://cache/0?timeout=3"
