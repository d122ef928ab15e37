"""Requests to the provider through the tunnel of a proxy (`HTTPS_PROXY`, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from akoya_gateway.oauth.client_authentication import FormRequest
from akoya_gateway.oauth.outcomes import DownReason
from akoya_gateway.oauth.token_messages import HttpResponse
from akoya_gateway.process_environment import read_process_environment
from akoya_gateway.provider import http_client
from akoya_gateway.provider.transport import NotSent, ResponseLost, post
from tests.support.certificates import self_signed

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
TOKENS = b'{"refresh_token":"r-2","id_token":"a.b.c"}'


@asynccontextmanager
async def listening(streams: Streams, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await streams(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def post_through(proxy: Streams, provider_port: int, timeout: float) -> object:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with listening(proxy) as port:
        environment, _, _ = read_process_environment({"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
        async with http_client(trusting, environment) as http:
            request = FormRequest(f"https://127.0.0.1:{provider_port}/token", (), (("refresh_token", "r-1"),))
            asked: list[bool] = []

            def may_send() -> bool:
                asked.append(True)
                return True

            response = await post(http, request, timeout, may_send=may_send)
            assert len(asked) == (not isinstance(response, NotSent)), "CONNECT does not send the token"
            return response


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (OK + b"Content-Length: 42\r\n\r\n" + TOKENS, HttpResponse(200, TOKENS)),
        (OK + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n" + TOKENS, ResponseLost("", HttpResponse(200, TOKENS))),
        (OK + b"Content-Length: 99\r\n\r\n" + TOKENS, ResponseLost("", HttpResponse(200, TOKENS))),
        (b"HTTP/1.1 503 No\r\n\r\n", HttpResponse(503, b"")),
    ],
)
async def test_response_through_the_tunnel_is_read_as_a_direct_one(
    tmp_path: Path, response: bytes, expected: HttpResponse | ResponseLost
) -> None:
    (tmp_path / "pem").write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"refresh_token=r-1")
        writer.write(response)
        await writer.drain()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as both:
            both.create_task(copy(reader, to_upstream))
            both.create_task(copy(upstream, writer))
        to_upstream.close()

    async with listening(respond, context) as port:
        answer = await post_through(tunnel, port, 30.0)
    if isinstance(expected, ResponseLost):
        assert isinstance(answer, ResponseLost) and answer.part == expected.part
    else:
        assert answer == expected


def answering(response: bytes, *, hold: bool = False) -> Streams:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"CONNECT ") and b"r-1" not in head
        writer.write(response)
        await writer.drain()
        if hold:
            await reader.read()

    return proxy


@pytest.mark.parametrize(
    ("proxy", "reason", "timeout"),
    [
        (answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), DownReason.PROXY, 30.0),
        (
            answering(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\nContent-Length: 0\r\n\r\n"),
            DownReason.PROXY,
            30.0,
        ),
        (answering(b"HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\n"), DownReason.PROXY, 30.0),
        (answering(b""), DownReason.PROXY, 30.0),
        (answering(b"<html>sign in</html>\r\n\r\n"), DownReason.PROXY, 30.0),
        (answering(OK + b"\r\n"), DownReason.UNREACHABLE, 30.0),
        (answering(OK + b"\r\n<html>"), DownReason.UNREACHABLE, 30.0),
        (answering(b"", hold=True), DownReason.UNREACHABLE, 0.5),
    ],
)
async def test_request_is_not_sent_through_a_proxy_that_opens_no_tunnel(
    proxy: Streams, reason: DownReason, timeout: float
) -> None:
    """If its outcome counted as unknown, a broken proxy would end grants after some repetitions."""
    answer = await post_through(proxy, 9, timeout)
    assert isinstance(answer, NotSent), answer
    assert answer.reason is reason
