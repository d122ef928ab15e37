"""One request ID per request: in the app, in the response, on pages, in problem documents and in the log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer

NAME = "x-request-id"
OWN = re.compile(r"[0-9a-f]{16}")
GIVEN = "chosen-by-another"


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Return the request IDs that arrived, and send one of its own."""
    if scope["type"] == "lifespan":
        return
    ids = json.dumps([value.decode() for name, value in scope["headers"] if name == NAME.encode()])
    own = [(NAME.encode(), b"the-apps-own"), (b"X-Request-ID", b"the-apps-own")]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": own[:1]})
        await send({"type": "websocket.send", "text": ids})
        return
    length = (b"content-length", b"%d" % len(ids))
    headers = own if scope["path"].endswith("/own") else []
    chunked = scope["path"].endswith("/stream")
    await send({"type": "http.response.start", "status": 200, "headers": headers if chunked else [*headers, length]})
    await send({"type": "http.response.body", "body": ids.encode(), "more_body": chunked})
    if chunked:
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module", params=["sidecar", "app", "middleware"])
def entrypoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def env(entrypoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint=entrypoint, upstream=AppServer(app), app=app) as env:
        yield env


@pytest.fixture(scope="module")
def trusting(entrypoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    """The same behind a proxy on loopback."""
    folder = tmp_path_factory.mktemp("trusting")
    changes = {"trusted_proxies": ["127.0.0.1/32"]}
    with GatewayEnv(folder, entrypoint=entrypoint, upstream=AppServer(app), app=app, changes=changes) as env:
        yield env


def ids_of(response: httpx.Response) -> list[str]:
    return response.headers.get_list(NAME)


def test_app_and_the_client_get_the_gateways_id_and_a_new_one_each_time(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    seen = []
    # Each several times, because the second request takes the fast lane.
    for path in ("/public/x", "/accounts/x", "/accounts/own", "/accounts/stream") * 3:
        for headers in ({}, {NAME: GIVEN}, {"X_Request_Id": GIVEN}):
            response = browser.fetch(path, headers=headers)
            (request_id,) = ids_of(response)
            assert response.json() == [request_id]
            assert OWN.fullmatch(request_id)
            seen.append(request_id)
    assert len(set(seen)) == len(seen)


def test_pages_problems_and_redirects_have_the_id_that_they_show(env: GatewayEnv, browser: Browser) -> None:
    problem = browser.fetch("/accounts", headers={NAME: GIVEN})
    assert problem.status_code == 401
    assert ids_of(problem) == [problem.json()["request_id"]]
    responses = [
        problem,
        browser.fetch("/nowhere"),
        browser.fetch("/public/%2e%2e/x"),
        browser.fetch("/akoya/"),
        browser.fetch("/akoya/", "PUT"),
        browser.go("/akoya/"),
        browser.go("/accounts"),
        browser.go("/akoya/connect/mikomo"),
        browser.go("/akoya/callback?state=unknown"),
    ]
    assert len({response.status_code for response in responses}) > 4
    for response in responses:
        (request_id,) = ids_of(response)
        assert OWN.fullmatch(request_id)


def test_trusted_proxys_id_reaches_the_app_and_the_response(trusting: GatewayEnv) -> None:
    with trusting.browser() as browser:
        browser.connect()
        for path in ("/public/x", "/accounts/x", "/accounts/own") * 3:
            response = browser.fetch(path, headers={NAME: GIVEN})
            assert (ids_of(response), response.json()) == ([GIVEN], [GIVEN])
            invalid = browser.fetch(path, headers={NAME: "not valid"})
            assert OWN.fullmatch(ids_of(invalid)[0])
        assert ids_of(browser.fetch("/nowhere", headers={NAME: GIVEN})) == [GIVEN]


def test_websockets_have_the_id_in_the_handshake_and_in_its_refusal(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
    url = f"ws{env.url.removeprefix('http')}/accounts/x"
    headers = {"Cookie": cookie, NAME: GIVEN}
    with websockets.sync.client.connect(url, additional_headers=headers, proxy=None) as socket:
        assert socket.response is not None
        ids = socket.response.headers.get_all(NAME)
        assert json.loads(socket.recv(30)) == ids
    assert OWN.fullmatch(ids[0])
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websockets.sync.client.connect(url, proxy=None)
    response = refused.value.response
    assert response.headers.get_all(NAME) == [json.loads(response.body)["request_id"]]


def test_access_log_has_the_id_of_the_response(env: GatewayEnv, browser: Browser) -> None:
    if env.entrypoint != "sidecar":
        pytest.skip("the access log belongs to the server there")
    browser.connect()
    wanted = {ids_of(browser.fetch(path))[0] for path in ("/accounts/x", "/public/x", "/nowhere", "/akoya/") * 2}
    deadline = time.monotonic() + 30
    while missing := wanted - {json.loads(line).get("request_id") for line in env.log().splitlines()}:
        assert time.monotonic() < deadline, missing  # lines are written after the response
        time.sleep(0.05)
