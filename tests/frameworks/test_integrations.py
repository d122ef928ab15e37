"""The integrations of akoya-verify in real servers: what they accept, what they refuse, and how views see it.

`test_oldest_releases.py` runs this file again with the oldest supported frameworks.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import uvicorn

from akoya_verify import ConnectionMissing, KeySource, Verified, connection_of, keys_of
from akoya_verify.result import Connection
from akoya_verify.testing import TEST_KEY, connected, signed_headers
from tests.frameworks.apps import ASGI, STRICT, WSGI
from tests.support.shutdown import served
from tests.support.waiting import until

KEYS = keys_of([TEST_KEY])
NOT_CONNECTED = "urn:akoya-gateway:problem:not-connected"
MADE_UP = ("Akoya-Owner", "akoya_owner", "AKOYA.OWNER")


class _Quiet(WSGIRequestHandler):
    timeout = 30

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def asgi_server(app: Any) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="websockets-sansio", interface="asgi3")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the server has started", 30)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextlib.contextmanager
def wsgi_server(app: Any) -> Iterator[int]:
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server, served(server, poll_interval=0.01):
        yield server.server_address[1]


def inside_a_gateway(app: Any, verified: Verified | None) -> Any:
    """Wrap an app as `Gateway` does: it sets `scope["akoya"]` for every request."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "akoya": verified}, receive, send)

    return wrapped


def start(stack: contextlib.ExitStack, name: str, keys: KeySource | None) -> int:
    if name in ASGI:
        return stack.enter_context(asgi_server(ASGI[name](keys)))
    return stack.enter_context(wsgi_server(WSGI[name](keys)))


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[tuple[str, str], int]]:
    """The ports of all apps: `behind` a gateway, whose keys they have; `inside` one; or wrapped in `none`."""
    with contextlib.ExitStack() as stack:
        yield {
            **{("behind", name): start(stack, name, KEYS) for name in (*ASGI, *WSGI)},
            **{("none", name): start(stack, name, None) for name in (*ASGI, *WSGI)},
            **{
                ("inside", name): stack.enter_context(
                    asgi_server(inside_a_gateway(app(None), connected(owner="alice")))
                )
                for name, app in ASGI.items()
            },
            **{
                ("public", name): stack.enter_context(asgi_server(inside_a_gateway(app(None), None)))
                for name, app in ASGI.items()
            },
        }


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if b"json" in response.headers["content-type"].encode() else text
    finally:
        connection.close()


def signed(port: int, path: str, **claims: Any) -> dict[str, str]:
    return signed_headers("GET", f"http://127.0.0.1:{port}{path}", **claims)


@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_signed_request_reaches_the_view_with_its_connection(ports: dict[tuple[str, str], int], name: str) -> None:
    port = ports["behind", name]
    for path in ("/mikomo", "/optional"):
        status, body = get(port, path, signed(port, path, owner="ali ce", id_token="a-token"))
        assert (status, body) == (200, {"owner": "ali ce", "token": "a-token"})


@pytest.mark.parametrize("header", MADE_UP)
@pytest.mark.parametrize("mode", ["behind", "none"])
@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_forged_owner_reaches_no_view(ports: dict[tuple[str, str], int], name: str, mode: str, header: str) -> None:
    """The attack of a client that reaches the app without the gateway, which `runserver` and `wsgi.py` allow."""
    status, body = get(ports[mode, name], "/seen", {header: "mallory"})
    assert status == (401 if mode == "behind" else 503), body
    assert "mallory" not in str(body)


@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_view_that_needs_a_connection_is_closed_without_signature(ports: dict[tuple[str, str], int], name: str) -> None:
    status, body = get(ports["behind", name], "/mikomo")
    assert status == 401
    if name not in STRICT:
        problem = body["detail"] if name == "fastapi" else body
        assert (problem["type"], problem["connect_url"]) == (NOT_CONNECTED, "/akoya/connect/mikomo")
    # An app without keys whose gateway is missing: an error of the operator, and never the view.
    assert get(ports["none", name], "/mikomo")[0] == (503 if name in STRICT else 500)


@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_unsigned_request_without_gateway_headers_reaches_only_views_that_decide_themselves(
    ports: dict[tuple[str, str], int], name: str
) -> None:
    status, body = get(ports["behind", name], "/seen")
    if name in STRICT:
        assert (status, body["detail"]) == (401, "missing-signature")
        assert get(ports["behind", name], "/exempt", {"Akoya-Owner": "mallory"})[1]["owner"] is None
    else:
        assert (status, body["owner"]) == (200, None)
        assert get(ports["behind", name], "/optional") == (200, {"owner": None, "token": None})


def test_exempt_django_view_finds_no_gateway_header_in_the_scope_either(ports: dict[tuple[str, str], int]) -> None:
    headers = {"Akoya-Owner": "mallory", "akoya_owner": "mallory", "X-Other": "1"}
    for mode in ("behind", "none"):
        status, body = get(ports[mode, "django-asgi"], "/exempt/raw", headers)
        assert (status, [name for name in body["names"] if name.startswith(("akoya", "x-"))]) == (200, ["x-other"])


@pytest.mark.parametrize("name", ASGI)
def test_app_inside_a_gateway_uses_its_result(ports: dict[tuple[str, str], int], name: str) -> None:
    for path in ("/mikomo", "/optional"):
        assert get(ports["inside", name], path) == (200, {"owner": "alice", "token": "test-id-token"})
    status, problem = get(ports["public", name], "/mikomo")
    assert (status, (problem["detail"] if name == "fastapi" else problem)["type"]) == (401, NOT_CONNECTED)
    assert get(ports["public", name], "/optional") == (200, {"owner": None, "token": None})


@pytest.mark.parametrize("name", ["starlette", "fastapi"])
def test_websocket_is_accepted_only_with_a_connection(ports: dict[tuple[str, str], int], name: str) -> None:
    port = ports["behind", name]
    assert handshake(port, signed(port, "/socket"))[0] == 101
    assert handshake(port, {}) == (403, b"")
    assert handshake(port, {"Akoya-Owner": "mallory"}) == (403, b"")
    assert handshake(ports["inside", name], {})[0] == 101


def handshake(port: int, headers: dict[str, str]) -> tuple[int, bytes]:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/socket", headers={**upgrade, **headers})
        response = connection.getresponse()
        return response.status, b"" if response.status == 101 else response.read()
    finally:
        connection.close()


LIVE, ENDED = Connection("other", "live", 1, "g_1"), Connection("other", "needs_reconnect", 0, "g_2")


@pytest.mark.parametrize(
    ("verified", "connector", "expected"),
    [
        (connected(), "mikomo", "test-id-token"),
        (connected(), None, "test-id-token"),
        (connected(connector=None), None, (401, "not-connected", "/akoya/")),
        (connected(), "other", (401, "not-connected", "/akoya/connect/other")),
        (connected(connections=(ENDED,)), "other", (401, "reconnect", "/akoya/connect/other")),
        (connected(connections=(ENDED, LIVE)), "other", (409, "other-connection", "/akoya/connect/other")),
        (connected(connections=(LIVE,), id_tokens={"mikomo": "1", "other": "2"}), "other", "2"),
        (None, "an/other", (401, "not-connected", "/akoya/connect/an%2Fother")),
    ],
)
def test_connection_of_a_request_is_that_of_the_bank_or_an_error(
    verified: Verified | None, connector: str | None, expected: Any
) -> None:
    try:
        found = connection_of(verified, connector)
    except ConnectionMissing as missing:
        assert (missing.status, missing.code, missing.connect_url) == expected
    else:
        assert found.id_token == expected
        assert (found.connector, found.owner) == (connector or "mikomo", "test-owner")
        if found is not verified:
            assert (found.grant, found.expires, found.provider) == ("g_1", 1, None)
