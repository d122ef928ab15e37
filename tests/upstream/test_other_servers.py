"""Tests of what ASGI servers other than uvicorn may do: HTTP/2 scopes, raising on disconnect, cancelling tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from akoya_gateway.config.model import Seconds, Upstream
from akoya_gateway.errors import UpstreamError
from akoya_gateway.upstream.errors import ClosedEarly, RefusedRequest
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.reverse_proxy import ReverseProxy
from tests.support.raw_http import Caller, RawUpstream, fixed
from tests.support.waiting import until


class Call:
    """One request as an ASGI server makes it. After its events the client stays connected and sends nothing."""

    def __init__(self, *events: dict[str, Any], **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "scheme": "https",
            "http_version": "2",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [(b"host", b"app.example")],
            "client": ("192.0.2.1", 1),
        } | scope
        self.events = list(events)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.events:
            return self.events.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@contextlib.asynccontextmanager
async def proxy_to(upstream: RawUpstream, read: float = 5.0) -> AsyncIterator[ReverseProxy]:
    pool = ConnectionPool(Upstream((upstream.origin,), read_timeout=Seconds(read)))
    yield ReverseProxy(pool)
    await pool.close()


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def echoing(caller: Caller) -> None:
    while True:
        head = caller.head()
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(caller.until(b"\r\n"), 16):
                body += caller.exactly(size + 2)[:-2]
            caller.until(b"\r\n")
        elif b"content-length: " in head:
            body = caller.exactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        else:
            body = b"nothing"
        caller.respond(body)


@pytest.mark.parametrize(
    ("events", "framing", "body"),
    [
        ([piece(b"", more=False)], None, b"nothing"),
        ([piece(b"hello", more=False)], b"content-length: 5", b"hello"),
        ([piece(b"hel", more=True), piece(b"lo", more=False)], b"transfer-encoding: chunked", b"hello"),
        ([piece(b"", more=True), piece(b"hello", more=True), piece(b"", more=False)], b"transfer-encoding", b"hello"),
    ],
)
async def test_request_without_framing_gets_the_one_its_events_need(
    events: list[dict[str, Any]], framing: bytes | None, body: bytes
) -> None:
    call = Call(*events)
    with RawUpstream(echoing) as upstream:
        async with proxy_to(upstream) as proxy:
            await proxy(call.scope, call.receive, call.send)
            assert call.body == body
            assert proxy.pool.idle == 1
        head = upstream.heads[0]
        assert (b"content-length" in head or b"transfer-encoding" in head) == (framing is not None)
        assert framing is None or framing in head


@pytest.mark.parametrize("sent", [b"hell", b"hello!"])
async def test_body_of_a_wrong_length_never_reaches_the_upstream_as_a_request(sent: bytes) -> None:
    call = Call(piece(sent, more=False), http_version="1.1", headers=[(b"host", b"a"), (b"content-length", b"5")])
    with RawUpstream(echoing) as upstream:
        async with proxy_to(upstream) as proxy:
            with pytest.raises(RefusedRequest):
                await proxy(call.scope, call.receive, call.send)
        assert upstream.heads == []


async def test_without_a_renderer_the_error_is_the_callers() -> None:
    call = Call(piece(b"", more=False), method="GET", http_version="1.1")
    with RawUpstream(fixed(b"", hold=False)) as upstream:
        async with proxy_to(upstream) as proxy:
            with pytest.raises(UpstreamError) as raised:
                await proxy(call.scope, call.receive, call.send)
    assert (raised.value.status, raised.value.code) == (502, "upstream-closed")
    assert call.sent == []


async def test_server_that_raises_after_a_client_disconnect_frees_the_connection() -> None:
    class Gone(Call):
        async def send(self, message: Any) -> None:
            raise OSError("client disconnected")

    call = Gone(method="GET", http_version="1.1")
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
    with RawUpstream(fixed(response)) as upstream:
        async with proxy_to(upstream) as proxy:
            with pytest.raises(OSError, match="client disconnected"):
                await proxy(call.scope, call.receive, call.send)
            assert proxy.pool.size == 0


async def test_cancelled_request_frees_the_connection() -> None:
    call = Call(method="GET", http_version="1.1")
    with RawUpstream(fixed(b"")) as upstream:
        async with proxy_to(upstream) as proxy:
            task = asyncio.create_task(proxy(call.scope, call.receive, call.send))
            await asyncio.to_thread(until, lambda: len(upstream.heads) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert proxy.pool.size == 0


async def test_error_of_the_server_while_it_receives_ends_the_request() -> None:
    class Broken(Call):
        async def receive(self) -> dict[str, Any]:
            if self.events:
                return self.events.pop(0)
            raise RuntimeError("broken server")

    call = Broken(piece(b"hel", more=True), http_version="1.1", headers=[(b"host", b"a"), (b"content-length", b"5")])
    with RawUpstream(echoing) as upstream:
        async with proxy_to(upstream) as proxy:
            with pytest.raises(RuntimeError, match="broken server"):
                await proxy(call.scope, call.receive, call.send)
            assert proxy.pool.size == 0


async def test_truncated_response_is_never_completed() -> None:
    call = Call(method="GET", http_version="1.1")
    with RawUpstream(fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", hold=False)) as upstream:
        async with proxy_to(upstream) as proxy:
            with pytest.raises(ClosedEarly):
                await proxy(call.scope, call.receive, call.send)
    assert all(message.get("more_body", True) for message in call.sent)


async def test_two_hundred_concurrent_requests_each_get_their_own_response() -> None:
    def handler(caller: Caller) -> None:
        while True:
            caller.respond(caller.head().split(b" ")[1])

    with RawUpstream(handler) as upstream:
        async with proxy_to(upstream) as proxy:
            calls = [Call(method="GET", http_version="1.1", raw_path=b"/%d" % number) for number in range(200)]
            for _ in range(3):
                await asyncio.gather(*[proxy(call.scope, call.receive, call.send) for call in calls])
                assert [call.body for call in calls] == [call.scope["raw_path"] for call in calls]
                for call in calls:
                    call.sent.clear()
            assert upstream.connections <= 100
