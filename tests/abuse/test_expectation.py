"""`Expect: 100-continue`: after a response it is always clear whether a body follows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running
from tests.support.waiting import until

BODY = b"GET /public/stolen HTTP/1.1\r\nHost: a\r\n\r\n"
EXPECTING = b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def handler(caller: Caller) -> None:
    while True:
        head = caller.head()
        assert b"expect" not in head.lower()
        if head.startswith(b"POST /public/refused"):
            caller.send(b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
            return
        if head.startswith(b"POST"):
            caller.exactly(len(BODY))
        caller.respond(head.split(b" ")[1])


@pytest.fixture(scope="module", params=[(), ("--no-fast-lane",)], ids=["lane", "no lane"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, RawUpstream]]:
    with RawUpstream(handler) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}"}}
        with Running(tmp_path_factory.mktemp("gateway"), *request.param, changes=changes) as run:
            yield run.port, upstream
        assert upstream.errors == []


@pytest.mark.parametrize("target", [b"/nowhere", b"/akoya/connect/nobank", b"/a//b", b"/akoya/disconnect/mikomo"])
def test_refusal_before_100_continue_closes_the_connection(gateway: tuple[int, RawUpstream], target: bytes) -> None:
    """Close the connection: a proxy may send another client's request next, which would be read as the body."""
    port, _ = gateway
    with Client(port) as client:
        client.send(b"POST " + target + EXPECTING)
        response = client.response()
        assert 400 <= response.status < 500
        assert response.get(b"connection") == b"close"
        assert client.closed()


def test_request_with_100_continue_keeps_the_connection(gateway: tuple[int, RawUpstream]) -> None:
    port, _ = gateway
    with Client(port) as client:
        for _ in range(2):
            client.send(b"POST /public/x" + EXPECTING)
            assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(BODY)
            assert client.response().body == b"/public/x"
            client.send(b"GET /public/y HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"/public/y"


def test_refusal_of_an_upload_reaches_the_client_and_the_body_is_no_request(gateway: tuple[int, RawUpstream]) -> None:
    port, upstream = gateway
    with Client(port) as client:
        client.send(b"POST /public/refused" + EXPECTING)
        response = client.response()
        continued = response.status == 100
        response = client.response() if continued else response
        assert response.status == 417
        # The outcome is a race. Either the connection is closed, or the body is still expected.
        assert (response.get(b"connection") == b"close") is not continued
        if continued:
            client.send(BODY)
            client.send(b"GET /public/y HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"/public/y"
    assert not any(b"/public/stolen" in head for head in upstream.heads)


def test_second_request_with_the_expectation_waits_for_its_turn(gateway: tuple[int, RawUpstream]) -> None:
    port, upstream = gateway
    before = len(upstream.heads)
    with Client(port) as client:
        client.send(b"GET /public/y HTTP/1.1\r\nHost: a\r\n\r\nPOST /public/x" + EXPECTING)
        assert client.response().body == b"/public/y"
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert client.response().body == b"/public/x"
    until(lambda: len(upstream.heads) == before + 2)
