"""A request is sent at most once, and the result tells whether the provider may have received it. Uses real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway.oauth.client_authentication import FormRequest
from akoya_gateway.oauth.outcomes import DownReason
from akoya_gateway.oauth.token_messages import MAX_BODY_BYTES, HttpResponse
from akoya_gateway.provider import http_client
from akoya_gateway.provider.transport import FetchFailed, NotSent, ResponseLost, get, post
from tests.support.certificates import self_signed
from tests.support.scripted_server import Received, Responder, Server, endless, in_turn, raw, reply, serve

OK = b"HTTP/1.1 200 OK\r\n"
COMPRESSED = b"\x1f\x9d\x90 compressed"
"""The beginning of a file of `compress`, which this client cannot decompress."""


def form(server: Server) -> FormRequest:
    return FormRequest(
        f"{server.url}/token", (("Content-Type", "application/x-www-form-urlencoded"),), (("refresh_token", "r-1"),)
    )


async def fetch(http: httpx.AsyncClient, responder: Responder, timeout: float = 2.0) -> tuple[Any, Server]:
    async with serve(token=responder) as server:
        return await post(http, form(server), timeout), server


async def test_form_is_sent_once_and_its_response_is_returned(http: httpx.AsyncClient) -> None:
    response, server = await fetch(http, reply(400, b'{"error":"x"}', "Retry-After: 7\r\n"))
    assert response == HttpResponse(400, b'{"error":"x"}', "7")
    assert len(server.received) == 1
    assert server.received[0].form == {"refresh_token": "r-1"}
    assert server.received[0].headers["accept-encoding"] == "identity"


async def test_request_that_may_not_be_sent_any_more_is_not_sent(http: httpx.AsyncClient) -> None:
    async with serve(token=reply(200, {})) as server:
        response = await post(http, form(server), 30.0, may_send=lambda: False)
        assert response == NotSent("too late to send the request: this process was paused, or the store failed")
        assert response.reason is DownReason.PAUSED
        assert not server.received
        assert isinstance(await post(http, form(server), 30.0, may_send=lambda: True), HttpResponse)
        assert len(server.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_returned_and_not_followed(http: httpx.AsyncClient, status: int) -> None:
    async with serve(token=reply(status, b"", "Location: /elsewhere\r\n"), elsewhere=reply(200, {})) as server:
        response = await post(http, form(server), 30.0)
        assert response == HttpResponse(status, b"")
        assert [request.path for request in server.received] == ["/token"]


LOST = {
    "closed without an answer": raw(),
    "cut in the status line": raw(b"HTTP/1.1 2"),
    "cut after the headers": raw(OK + b"Content-Length: 10\r\n\r\n"),
    "cut in the middle of the body": raw(OK + b"Content-Length: 10\r\n\r\n{}"),
    "cut in a chunk": raw(OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{"),
    "cut between chunks": raw(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "a broken length": raw(OK + b"Content-Length: ten\r\n\r\n{}"),
    "two lengths": raw(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"),
    "endless headers": endless(OK, b"X-Filler: " + b"y" * 8000 + b"\r\n"),
    "an unknown encoding": reply(200, COMPRESSED, "Content-Encoding: compress\r\n"),
    "a broken encoding": reply(200, b"\x1f\x8b\x08 broken", "Content-Encoding: gzip\r\n"),
    "a cut encoding": reply(200, gzip.compress(b'{"a":"' + b"x" * 999 + b'"}')[:-12], "Content-Encoding: gzip\r\n"),
}


@pytest.mark.parametrize("fault", LOST)
async def test_after_the_request_left_anything_incomplete_is_lost_and_never_sent_again(
    http: httpx.AsyncClient, fault: str
) -> None:
    response, server = await fetch(http, LOST[fault])
    assert isinstance(response, ResponseLost), response
    assert len(server.received) == 1
    assert server.connections == 1


async def test_reset_connection_is_lost(http: httpx.AsyncClient) -> None:
    async def reset(_: Server, __: Received, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    response, server = await fetch(http, reset)
    assert isinstance(response, ResponseLost)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "responder",
    [
        raw(hold=True),
        raw(OK + b"Content-Length: 10\r\n\r\n", hold=True),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        endless(OK, b"X: y\r\n", 0.01),
        endless(OK + b"Content-Length: 100000\r\n\r\n", b" ", 0.01),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.01),
    ],
    ids=[
        "never answers",
        "never sends the body",
        "endless 100",
        "dripping headers",
        "dripping body",
        "dripping chunks",
    ],
)
async def test_deadline_holds_for_the_whole_call(http: httpx.AsyncClient, responder: Responder) -> None:
    async with asyncio.timeout(20):
        lost, server = await fetch(http, responder, timeout=0.3)
    assert lost == ResponseLost("no complete response within 0.3 s")
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 302])
async def test_sufficient_status_counts_without_its_body(http: httpx.AsyncClient, status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 10\r\nRetry-After: 3\r\n\r\n".encode()
    assert (await fetch(http, raw(head)))[0] == HttpResponse(status, b"", "3")
    assert (await fetch(http, raw(head, hold=True), timeout=1.5))[0] == HttpResponse(status, b"", "3")
    assert isinstance((await fetch(http, raw(head.replace(str(status).encode(), b"400", 1))))[0], ResponseLost)


@pytest.mark.parametrize("length", [b"Content-Length: 5000000000\r\n\r\n", b"\r\n"])
async def test_gigabytes_are_not_read(http: httpx.AsyncClient, length: bytes) -> None:
    async with serve(token=endless(OK + length, b"x" * 65536)) as server:
        response = await post(http, form(server), 60.0)
        assert isinstance(response, HttpResponse)
        assert len(response.body) == MAX_BODY_BYTES + 1
        await asyncio.wait_for(server.gone.wait(), 60)  # the client closed the connection


async def test_gzip_bomb_does_not_go_off(http: httpx.AsyncClient) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(64)) + packer.flush()
    response, _ = await fetch(http, reply(200, bomb, "Content-Encoding: gzip\r\n"), timeout=60)
    assert isinstance(response, HttpResponse)
    assert len(response.body) == MAX_BODY_BYTES + 1


async def test_data_after_a_compressed_body_is_not_buffered(http: httpx.AsyncClient) -> None:
    responder = endless(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}"), b"x" * 65536)
    async with serve(token=responder) as server:
        assert await post(http, form(server), 60.0) == HttpResponse(200, b"{}")
        await asyncio.wait_for(server.gone.wait(), 60)


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_unrequested_compression_is_decoded(http: httpx.AsyncClient, name: str, pack: Any) -> None:
    body = json.dumps({"id_token": "a" * 5000}).encode()
    response, _ = await fetch(http, reply(200, pack(body), f"Content-Encoding: {name}\r\n"))
    assert response == HttpResponse(200, body)


async def test_no_connection_means_not_sent(http: httpx.AsyncClient) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    request = FormRequest(f"http://127.0.0.1:{port}/token", (), ())
    assert await post(http, request, 2.0) == NotSent("no connection to the provider (ConnectError)")


async def test_host_that_does_not_exist_means_not_sent(http: httpx.AsyncClient) -> None:
    request = FormRequest("http://no-such-host.invalid/token", (), ())
    assert isinstance(await post(http, request, 5.0), NotSent)


async def test_tls_handshake_that_fails_means_not_sent() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    seen: list[bytes] = []
    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        request = FormRequest(f"https://127.0.0.1:{port}/token", (), (("refresh_token", "r-1"),))
        assert await post(http, request, 5.0) == NotSent("no connection to the provider (ConnectError)")
    assert len(seen) == 1
    assert b"r-1" not in seen[0]
    listening.close()


async def test_tls_handshake_that_never_ends_means_not_sent() -> None:
    """The deadline expires before any byte of the form is written."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        finally:
            writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        request = FormRequest(f"https://127.0.0.1:{port}/token", (), (("refresh_token", "r-1"),))
        assert isinstance(await post(http, request, 0.3), NotSent)
    listening.close()


async def test_full_pool_means_not_sent() -> None:
    limits = httpx.Limits(max_connections=1)
    async with serve(token=raw(hold=True)) as server, httpx.AsyncClient(limits=limits) as http:
        first = asyncio.create_task(post(http, form(server), 3.0))
        while not server.received:
            await asyncio.sleep(0.01)
        assert await post(http, form(server), 0.4) == NotSent("no connection to the provider (PoolTimeout)")
        assert isinstance(await first, ResponseLost)
        assert len(server.received) == 1


async def test_connection_that_the_server_closes_is_never_reused_and_nothing_is_sent_twice(
    http: httpx.AsyncClient,
) -> None:
    """The server offers keep-alive and then closes: the second form must not be sent on the closing connection."""
    server_answers = in_turn(raw(OK + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"), reply(200, {}))
    async with serve(token=server_answers) as server:
        for _ in range(2):
            assert await post(http, form(server), 30.0) == HttpResponse(200, b"{}")
        assert len(server.received) == 2
        assert server.connections == 2
        assert all(request.headers["connection"] == "close" for request in server.received)


async def test_client_with_keep_alive_does_not_resend_on_a_closed_connection() -> None:
    """Even if the client pools connections, the server reads each form at most once."""

    async def keep_then_die(server: Server, _: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK + b"Content-Length: 2\r\n\r\n{}")
        await writer.drain()
        return len(server.received) < 2

    async with serve(token=keep_then_die) as server, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        responses = [await post(http, form(server), 30.0) for _ in range(4)]
        assert len(server.received) <= len(responses)
        assert sum(isinstance(response, HttpResponse) for response in responses) == len(server.received)


class Closing(httpx.AsyncByteStream):
    """A complete response whose connection is slow to close, or fails to close."""

    def __init__(self, fault: Exception | None) -> None:
        self.may = asyncio.Event()
        self.closed = asyncio.Event()
        self._fault = fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"

    async def aclose(self) -> None:
        if self._fault is not None:
            self.closed.set()
            raise self._fault
        await self.may.wait()
        self.closed.set()


@pytest.mark.parametrize("fault", [None, httpx.ReadError("cut"), TimeoutError()], ids=["late", "broken", "timeout"])
async def test_complete_response_counts_even_if_closing_its_connection_fails(fault: Exception | None) -> None:
    stream = Closing(fault)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=stream))
    async with httpx.AsyncClient(transport=transport) as http:
        response = await post(http, FormRequest("https://bank.example.com/token", (), (("a", "b"),)), 0.5)
        assert response == HttpResponse(200, b"{}", None)
        # httpcore does not free the connection's slot in the pool if its close is cancelled.
        stream.may.set()
        async with asyncio.timeout(30):
            await stream.closed.wait()


async def test_cancellation_passes_through(http: httpx.AsyncClient) -> None:
    async with serve(token=raw(hold=True)) as server:
        task = asyncio.create_task(post(http, form(server), 30.0))
        while not server.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cookies_are_neither_kept_nor_sent(http: httpx.AsyncClient) -> None:
    async with serve(token=reply(200, {}, "Set-Cookie: lb=node-7; Path=/\r\n")) as server:
        await post(http, form(server), 30.0)
        await post(http, form(server), 30.0)
        assert all("cookie" not in request.headers for request in server.received)
        assert len(http.cookies.jar) == 0


async def test_plain_http_never_takes_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from akoya_gateway.provider import http_client

    async with serve(token=reply(200, {})) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with http_client() as http:
            assert await post(http, form(server), 30.0) == HttpResponse(200, b"{}")


async def test_proxy_that_refuses_means_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from akoya_gateway.provider import http_client

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    seen: list[bytes] = []
    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with http_client() as http:
        request = FormRequest("https://idp.example.invalid/token", (), (("refresh_token", "r-1"),))
        assert await post(http, request, 2.0) == NotSent("no connection to the provider (ProxyError)")
    assert seen and b"r-1" not in b"".join(seen)
    listening.close()


@pytest.mark.parametrize(
    ("responder", "reason"),
    [
        (reply(302, b"", "Location: /doc\r\n"), "responded with 302"),
        (reply(404, b""), "responded with 404"),
        (reply(200, b"x" * 101), "sent more than 100 bytes"),
        (endless(OK + b"\r\n", b"x" * 65536), "sent more than 100 bytes"),
        (raw(hold=True), "no complete response within 0.5 s"),
        (raw(), "the connection failed (RemoteProtocolError)"),
        (reply(200, COMPRESSED, "Content-Encoding: compress\r\n"), "Content-Encoding"),
        (raw(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n", hold=True), "responded with 404"),
    ],
)
async def test_document_that_cannot_be_fetched_raises_the_reason(
    http: httpx.AsyncClient, responder: Responder, reason: str
) -> None:
    async with serve(doc=responder) as server:
        with pytest.raises(FetchFailed) as failed:
            await get(http, f"{server.url}/doc", 100, 0.5)
        assert reason in str(failed.value)
        assert len(server.received) == 1


async def test_document_is_read_through_mark_and_encoding(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(b'\xef\xbb\xbf{"a": 1}')
    for headers in ("", "Content-Encoding: gzip\r\n", "Content-Encoding: x-gzip\r\nCache-Control: max-age=9\r\n"):
        async with serve(doc=reply(200, packed, headers)) as server:
            assert (await get(http, f"{server.url}/doc", 100, 2.0)).body == b'{"a": 1}'


async def test_labels_in_several_fields_are_read_as_one_list(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(zlib.compress(b"{}")[2:-4])
    response, _ = await fetch(http, reply(200, packed, "Content-Encoding: deflate\r\nContent-Encoding: gzip\r\n"))
    assert response == HttpResponse(200, b"{}")


async def test_received_part_of_a_lost_response_is_kept(http: httpx.AsyncClient) -> None:
    for head in (b"Content-Length: 99\r\n\r\n", b"Content-Encoding: gzip\r\nContent-Length: 99\r\n\r\n"):
        body = b'{"refresh_token":"r-2"' if b"gzip" not in head else gzip.compress(b'{"refresh_token":"r-2"' * 9)[:-8]
        for response in (raw(OK + head + body), raw(OK + head + body, hold=True)):
            lost, _ = await fetch(http, response, timeout=0.3)
            assert isinstance(lost, ResponseLost) and lost.part is not None
            assert lost.part.status == 200 and lost.part.body.startswith(b'{"refresh_token":"r-2"')


async def test_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/token"
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        response = await post(http, FormRequest(url, (), ()), 5.0)
        assert isinstance(response, NotSent)
        assert response.reason is DownReason.CERTIFICATE
        assert response.detail.startswith("the provider's certificate is not trusted (")
        with pytest.raises(FetchFailed, match="the certificate is not trusted"):
            await get(http, url, 100, 5.0)
    listening.close()


async def test_response_over_tls_that_is_not_http_is_kept(tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Transfer-Encoding: identity\r\n\r\n" + b'{"refresh_token":"r-2"}')
        writer.close()

    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    listening = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/token"
    async with http_client(trusting) as http:
        response = await post(http, FormRequest(url, (), ()), 30.0)
    listening.close()
    assert isinstance(response, ResponseLost)
    assert response.part == HttpResponse(200, b'{"refresh_token":"r-2"}')
