"""Tests of the limits for a request head, over raw sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.uvicorn_server import DrainingServer, server_config
from tests.support.asgi import read_body

LIMIT = 2000


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = b"" if scope["path"] == "/early" else await read_body(receive)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    response = b"%d" % len(body)
    if scope["path"] == "/names":
        response = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(response))]})
    await send({"type": "http.response.body", "body": response})


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """Serve with a timeout of 30 s for heads and idle connections, or with the test's parameter."""
    seconds: Any = getattr(request, "param", 30.0)
    config = server_config(app, head_limit=LIMIT, protocol=partial(LimitedHttpProtocol, head_timeout=seconds))
    config.timeout_keep_alive = seconds
    server = DrainingServer(config, grace=1)
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    serving = asyncio.ensure_future(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield number
    server.stop()
    await serving


async def talk(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send the pieces, then read until the server closes the connection (at most 60 s)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(60):
            return await reader.read()
    except (ConnectionResetError, BrokenPipeError):
        return b"reset"
    finally:
        writer.transport.abort()


def get(size: int = 0, path: bytes = b"/", close: bool = True) -> bytes:
    head = b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + (b"connection: close\r\n" if close else b"")
    return head + (b"x-pad: " + b"a" * size + b"\r\n" if size else b"") + b"\r\n"


async def test_head_within_the_limit_is_served(port: int) -> None:
    assert (await talk(port, get(LIMIT - 200))).startswith(b"HTTP/1.1 200")


async def test_large_body_does_not_count(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 50000\r\n\r\n"
    assert (await talk(port, head + b"b" * 50_000)).endswith(b"\r\n\r\n50000")


@pytest.mark.parametrize("form", ["at once", "in pieces", "one header without end", "long target", "many headers"])
async def test_head_beyond_the_limit_is_431(port: int, form: str) -> None:
    if form == "at once":
        response = await talk(port, get(LIMIT + 100))
    elif form == "in pieces":
        whole = get(LIMIT + 100)
        response = await talk(port, *(whole[n : n + 500] for n in range(0, len(whole), 500)), pause=0.01)
    elif form == "one header without end":
        response = await talk(port, b"GET / HTTP/1.1\r\nx: " + b"a" * (LIMIT + 100))
    elif form == "long target":
        response = await talk(port, get(path=b"/" + b"a" * LIMIT))
    else:
        response = await talk(port, b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 400 + b"\r\n")
    assert response.startswith(b"HTTP/1.1 431"), response[:200]
    assert b"application/problem+json" in response
    assert b"connection: close" in response


SHORT = pytest.mark.parametrize("port", [1.2], indirect=True)


@SHORT
async def test_head_that_does_not_end_is_408(port: int) -> None:
    assert (await talk(port, b"GET / HTTP/1.1\r\nhost: x\r\n")).startswith(b"HTTP/1.1 408")


@SHORT
async def test_head_byte_by_byte_has_no_more_time(port: int) -> None:
    response = await talk(port, *(bytes([byte]) for byte in get()[:30]), pause=0.06)
    assert response.startswith(b"HTTP/1.1 408") or response == b"reset"


@SHORT
async def test_silent_connection_is_closed(port: int) -> None:
    assert await talk(port) == b""


@SHORT
@pytest.mark.parametrize("idle", [b"", b"\r\n", b"\r"])
async def test_empty_line_does_not_keep_an_idle_connection(port: int, idle: bytes) -> None:
    response = await talk(port, get(close=False), idle, pause=0.1)
    assert response.count(b"HTTP/1.1 200") == 1


@SHORT
async def test_unfinished_body_after_its_response_does_not_keep_the_connection_open(port: int) -> None:
    post = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    response = await talk(port, post, b"some", pause=0.1)
    assert response.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("port", [3.0], indirect=True)
async def test_slow_body_after_its_response_is_read_to_its_end_and_the_next_request_is_served(port: int) -> None:
    post = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    response = await talk(port, post, *(bytes([byte]) for byte in b"somethin"), b"g" + get(), pause=0.4)
    assert response.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("cut", [0, 1, 60, 70, 80, 90])
async def test_trailer_is_no_header(port: int, cut: int) -> None:
    """The trailer arrives after the headers have been validated, or during validation."""
    post = b"POST /names HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    request = post + b"1\r\nx\r\n0\r\nX-HTTP-Method-Override: DELETE\r\nCookie: akoya=x\r\n\r\n"
    response = await talk(port, request[: len(post) - 60 + cut], request[len(post) - 60 + cut :], pause=0.05)
    assert response.endswith(b"\r\n\r\nhost transfer-encoding connection")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS on a port for plain HTTP."),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n" + get(), "PROXY protocol, which is not supported."),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + get(), "PROXY protocol, which is not supported."),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS, which is not supported."),
        (get(path="/café".encode()), "Not valid HTTP: Invalid char in url path."),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", "Not valid HTTP: Invalid header token."),
        (get(path=b"/a#b"), "Fragment in the target."),
        (get(path=b"http://evil.example/a"), "Another host in the target than in Host."),
        (get(path=b"http://[::1]:80/a"), "Another host in the target than in Host."),
        (get(path=b"http://user@x/a"), "Another host in the target than in Host."),
        (get(path=b"http://x:x@evil.example/a"), "Another host in the target than in Host."),
        (get(path=b"http://x/a").replace(b"host: x\r\n", b""), "Another host in the target than in Host."),
        (
            get(path=b"http://x/a").replace(b"host: x\r\n", b"host: x\r\nhost: y\r\n"),
            "Another host in the target than in Host.",
        ),
    ],
    ids=[
        "TLS",
        "PROXY 1",
        "PROXY 2",
        "HTTP/2",
        "path",
        "header",
        "fragment",
        "other host",
        "IPv6 host",
        "user",
        "password",
        "no Host",
        "two Hosts",
    ],
)
async def test_request_that_is_not_http_gets_400_with_the_reason(port: int, sent: bytes, reason: str) -> None:
    response = await talk(port, sent)
    assert response.startswith(b"HTTP/1.1 400")
    problem = json.loads(response.partition(b"\r\n\r\n")[2])
    assert problem["type"] == "urn:akoya-gateway:problem:bad-request"
    assert problem["detail"] == reason


@pytest.mark.parametrize("target", [b"http://x/a", b"http://x:80/a", b"HTTP://X/a?b=http://y/", b"/http://y/a", b"*"])
async def test_target_with_the_host_of_the_header_or_without_one_is_served(port: int, target: bytes) -> None:
    response = await talk(port, get(path=target).replace(b"GET *", b"OPTIONS *"))
    assert response.startswith(b"HTTP/1.1 200")


async def test_unreadable_second_request_does_not_corrupt_the_first_response(port: int) -> None:
    response = await talk(port, get(path=b"/slow", close=False) + b"NONSENSE\r\n\r\n")
    assert response.count(b"HTTP/1.1") <= 1
    assert b"400" not in response


async def test_second_request_of_a_connection_is_weighed_by_itself(port: int) -> None:
    response = await talk(port, get(LIMIT - 300, close=False), get(LIMIT - 300), pause=0.1)
    assert response.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a HTTP/2.0",
        b"GET /a",
        b"GET /a HTTP/0.9",
        b"SOURCE /a ICE/1.0",
        b"SOURCE /a HTTP/1.1",
        b"GET /a HTTP/3.0",
    ],
)
async def test_other_versions_are_not_spoken(port: int, line: bytes) -> None:
    response = await talk(port, line + b"\r\nHost: a\r\n\r\n")
    assert response.startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 ")), response[:80]
    assert b"\r\nconnection: close\r\n" in response


async def test_http_1_0_and_1_1_are_served(port: int) -> None:
    for version in (b"1.0", b"1.1"):
        response = await talk(port, b"GET /a HTTP/" + version + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 200 ")
