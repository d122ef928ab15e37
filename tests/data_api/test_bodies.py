"""Bodies in both directions, and requests that may not be repeated, with a data API that a test controls."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.data_api.conftest import CHANGES
from tests.data_api.products_server import ProductsServer, error
from tests.support.environment import Browser, GatewayEnv
from tests.support.waiting import WITHIN, until

PATH = "/send/mikomo/balances"


class OtherProducts(GatewayEnv):
    """A env whose `products_url` is a server of the test."""

    def __init__(self, folder: Path, products_url: str, **options: Any) -> None:
        super().__init__(folder, **options)
        self._products_url = products_url

    def config(self) -> dict[str, Any]:
        environment = {**self.akoya.environment(), "products_url": f"{self._products_url}/base"}
        return {**super().config(), "environments": {"double": environment}}


@pytest.fixture(scope="module")
def server() -> Iterator[ProductsServer]:
    with ProductsServer() as server:
        yield server


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, server: ProductsServer) -> Iterator[GatewayEnv]:
    with OtherProducts(tmp_path_factory.mktemp("env"), server.url, changes=CHANGES) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv, server: ProductsServer) -> Iterator[Browser]:
    server.received.clear()
    server.responses = [(200, {}, b"{}")]
    server.reads_body = True
    with env.browser() as browser:
        browser.connect()
        yield browser


def problem(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def refreshes(env: GatewayEnv) -> int:
    return len([event for event in env.akoya.events("token") if event.get("grant_type") == "refresh_token"])


def test_request_has_nothing_of_the_client_but_what_is_listed(server: ProductsServer, browser: Browser) -> None:
    headers = {
        "accept": "application/pdf", "accept-language": "de", "if-none-match": '"1"', "range": "bytes=0-9",
        "accept-encoding": "br", "x-own": "1", "x-akoya-interaction-type": "batch", "user-agent": "x", "origin": "null",
    }  # fmt: skip
    browser.fetch("/bank-data/mikomo/statements/1/2?a=%2F&b", headers=headers)
    (request,) = server.received
    assert (request.method, request.path, request.query) == ("GET", "/base/statements/v3/mikomo/1/2", "a=%2F&b")
    assert request.headers.pop("authorization").startswith("Bearer ey")
    assert request.headers.pop("x-akoya-last-access").endswith("Z")
    assert request.headers == {
        "host": server.url.removeprefix("http://"),
        "accept": "application/pdf",
        "accept-language": "de",
        "if-none-match": '"1"',
        "range": "bytes=0-9",
        "accept-encoding": "identity",
        "x-akoya-interaction-type": "user",
        "x-akoya-intent-type": "nonpayments",
        "user-agent": "akoya-gateway",
        "connection": "keep-alive",
    }


def test_connections_are_kept_for_get_and_new_for_post(server: ProductsServer, browser: Browser) -> None:
    for method in ("GET", "GET", "GET", "POST", "POST"):
        assert browser.fetch(PATH, method).status_code == 200
    connections = [request.connection for request in server.received]
    assert len(set(connections[:3])) == 1
    assert len(set(connections)) == 3


def test_response_is_confined(server: ProductsServer, browser: Browser) -> None:
    theirs = {
        "set-cookie": "akoya=x", "refresh": "0;url=https://evil.example", "access-control-allow-origin": "*",
        "clear-site-data": '"*"', "akoya-owner": "x", "link": "<https://evil.example>", "cache-control": "public",
        "content-security-policy": "script-src *", "x-akoya-interaction-id": "i-1", "etag": '"1"',
        "location": "https://evil.example",
    }  # fmt: skip
    server.responses = [(200, {**theirs, "content-type": "text/html"}, b"<script>1</script>")]
    response = browser.fetch(PATH)
    assert response.content == b"<script>1</script>"
    assert not {"set-cookie", "refresh", "access-control-allow-origin", "clear-site-data", "akoya-owner", "link",
                "location"} & set(response.headers)  # fmt: skip
    assert response.headers.get_list("content-security-policy") == ["sandbox"]
    assert response.headers.get_list("cache-control") == ["private, no-store"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert (response.headers["x-akoya-interaction-id"], response.headers["etag"]) == ("i-1", '"1"')


def test_bodies_stream_in_both_directions(server: ProductsServer, browser: Browser) -> None:
    sent, returned = os.urandom(3_000_000), os.urandom(3_000_000)
    server.responses = [(200, {"content-length": str(len(returned))}, returned)]

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(sent), 100_000):
            yield sent[start : start + 100_000]

    for content in (sent, chunks(), b""):
        response = browser.fetch(PATH, "POST", content=content, headers={"content-type": "application/x-test"})
        assert response.content == returned
    assert [request.body for request in server.received] == [sent, sent, b""]
    assert server.received[0].headers["content-type"] == "application/x-test"


# The answer of the data API; the client's status and problem.
NEVER_REPEATED = [
    (503, b"", 503, "bank-unavailable"),
    (500, b"", 503, "bank-unavailable"),
    (429, error(1207), 429, "too-many-requests"),
    (401, error(602), 503, "token-refreshed"),
    (408, b"", 504, "bank-timeout"),
    (302, b"", 502, "bank-redirect"),
]


def test_post_is_never_repeated(env: GatewayEnv, server: ProductsServer, browser: Browser) -> None:
    before = refreshes(env)
    found = []
    for status, body, *_ in NEVER_REPEATED:
        server.responses = [(status, {}, body)]
        response = browser.fetch(PATH, "POST", content=b"once")
        found.append((status, body, response.status_code, problem(response)))
        if response.status_code == 429 or problem(response) == "token-refreshed":
            assert int(response.headers["retry-after"]) >= 1
    assert found == NEVER_REPEATED
    assert [request.body for request in server.received] == [b"once"] * len(NEVER_REPEATED)
    assert refreshes(env) == before + 1


def test_post_that_a_fresh_token_is_rejected_for_is_not_entitled_and_not_refreshed_again(
    env: GatewayEnv, server: ProductsServer, browser: Browser
) -> None:
    """Each refresh spends a refresh token, and clients repeat what `Retry-After` tells them to repeat."""
    before = refreshes(env)
    server.responses = [(401, {}, error(602))]
    path = "/send/mikomo/statements"
    found = [problem(browser.fetch(path, "POST")) for _ in range(3)]
    assert found == ["token-refreshed", "not-entitled", "not-entitled"]
    assert refreshes(env) == before + 1
    server.responses = [(200, {}, b"{}")]
    assert browser.fetch(path, "POST").status_code == 200


RAW = {
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nConnection: close\r\n\r\n": (304, b""),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nConnection: close\r\n\r\n": (204, b""),
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n0\r\n\r\n": (200, b"01234567"),
    b"HTTP/1.1 404 X\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n0\r\n\r\n": (404, b"01234567"),
    b"HTTP/1.1 700 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab": (503, None),
}  # fmt: skip
"""Responses of a data API whose length or status an ASGI server does not accept; the client's status and body."""


def test_length_or_status_that_the_server_cannot_send_does_not_end_the_clients_connection(tmp_path: Path) -> None:
    responses = iter(RAW)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(next(responses))

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as api:
        url = f"http://127.0.0.1:{api.server_address[1]}"
        threading.Thread(target=api.serve_forever, daemon=True).start()
        with OtherProducts(tmp_path, url, changes=CHANGES) as env, env.browser() as browser:
            browser.connect()
            found = [browser.fetch(PATH, "POST") for _ in RAW]
        api.shutdown()
    for response, (status, body) in zip(found, RAW.values(), strict=True):
        assert response.status_code == status
        assert body is None or response.content == body


def test_request_of_another_origin_that_could_change_something_makes_no_call(
    env: GatewayEnv, server: ProductsServer, browser: Browser
) -> None:
    foreign = browser.fetch(PATH, "POST", headers={"origin": "https://evil.example"})
    assert (foreign.status_code, problem(foreign)) == (403, "foreign-origin")
    assert server.received == []
    assert browser.fetch(PATH, "POST", headers={"origin": env.url}).status_code == 200


def test_client_that_leaves_in_its_body_ends_the_call(
    env: GatewayEnv, server: ProductsServer, browser: Browser
) -> None:
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nCookie: {cookie}\r\nAccept: application/json\r\n"
        "Content-Length: 1000000\r\n\r\n"
    )
    server.left.clear()
    with socket.create_connection(("127.0.0.1", env.port), WITHIN) as client:
        client.sendall(head.encode() + b"x" * 1000)
        until(lambda: server.received, "the call has begun")
    assert server.left.wait(WITHIN)


def test_no_connection_to_the_data_api_is_bank_unavailable(tmp_path: Path) -> None:
    with OtherProducts(tmp_path, "http://127.0.0.1:9", changes=CHANGES) as env, env.browser() as browser:
        browser.connect()
        for method in ("GET", "POST"):
            response = browser.fetch(PATH, method, content=b"x" if method == "POST" else None)
            assert (response.status_code, problem(response)) == (503, "bank-unavailable")
            assert "retry-after" in response.headers
