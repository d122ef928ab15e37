"""Tokens for background jobs, from the admin listener, for callers with its bearer token."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import GatewayProcess
from tests.support.waiting import until

BEARER = "a-bearer-for-background-jobs-in-tests"
RECONNECT = "urn:akoya-gateway:problem:reconnect"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), token_bearer=BEARER) as env:
        yield env


def fetch(
    env: GatewayEnv, path: str = "/akoya/token/mikomo", bearer: str | None = BEARER, **more: Any
) -> httpx.Response:
    headers = {} if bearer is None else {b"authorization": f"Bearer {bearer}".encode("latin-1")}
    return httpx.get(env.admin_url + path, headers=headers, trust_env=False, timeout=60, **more)


def test_job_gets_the_same_token_as_the_app(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    passed = browser.passed()
    response = fetch(env, params={"owner": passed["akoya-owner"]})
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["id_token"] == passed["akoya-id-token"]
    assert response.json()["expires"] == int(passed["akoya-expires"])
    assert response.json()["interaction_type"] == "batch"
    for name in ("provider", "grant", "consent", "last_access"):
        assert response.json()[name] == passed[f"akoya-{name.replace('_', '-')}"]


@pytest.mark.parametrize("bearer", [None, "wrong", BEARER[:-1], BEARER + "x", BEARER + "\xa0"])
def test_token_endpoint_without_the_bearer_is_refused(env: GatewayEnv, browser: Browser, bearer: str | None) -> None:
    browser.connect()
    response = fetch(env, bearer=bearer, params={"owner": browser.passed()["akoya-owner"]})
    assert response.status_code == 401
    assert "id_token" not in response.text
    # RFC 6750 section 3: with an error only if the request has a bearer token.
    error = "" if bearer is None else ', error="invalid_token"'
    assert response.headers.get_list("www-authenticate") == ['Bearer realm="akoya-gateway"' + error]


def test_unknown_owner_or_connector_is_not_found(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    owner = browser.passed()["akoya-owner"]
    assert fetch(env, params={"owner": "own_nobody"}).status_code == 404
    assert fetch(env, "/akoya/token/other", params={"owner": owner}).status_code == 404
    assert fetch(env, "/akoya/token/%256dikomo", params={"owner": owner}).status_code == 404  # Decoded once.
    assert fetch(env).status_code == 400


def test_requests_for_tokens_are_logged_with_owner_and_connector(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    passed = browser.passed()
    owner, token = passed["akoya-owner"], passed["akoya-id-token"]
    responses = [
        fetch(env, params={"owner": owner}),
        fetch(env, "/akoya/token/other", params={"owner": owner}),
        fetch(env, bearer="wrong", params={"owner": owner}),
    ]
    ids = {response.headers["x-request-id"] for response in responses}
    until(lambda: ids <= token_requests(env).keys(), "the requests are logged")
    logged = token_requests(env)
    assert [logged[response.headers["x-request-id"]] for response in responses] == [
        ["info", "ok", owner, "mikomo", passed["akoya-grant"]],
        ["info", "not-connected", owner, "other", None],
        ["warning", "unauthorized", None, None, None],
    ]
    assert responses[1].json()["request_id"] == responses[1].headers["x-request-id"]
    assert token not in env.log()


def token_requests(env: GatewayEnv) -> dict[str, list[Any]]:
    """Return the facts of each logged request for a token, by request ID."""
    events = [json.loads(line) for line in env.log().splitlines() if '"event":"token requested"' in line]
    facts = ("level", "result", "owner", "connector", "grant")
    return {event["request_id"]: [event.get(name) for name in facts] for event in events}


def test_token_endpoint_is_not_on_the_public_port(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    owner = browser.passed()["akoya-owner"]
    response = browser.fetch(f"/akoya/token/mikomo?owner={owner}", headers={"authorization": f"Bearer {BEARER}"})
    assert response.status_code == 404


def test_token_endpoint_is_not_on_the_admin_listener_by_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    with GatewayEnv(tmp_path_factory.mktemp("plain")) as env:
        assert fetch(env, params={"owner": "own_x"}).status_code == 404


def test_waiting_for_the_last_refresh_still_reports_alive(tmp_path: Path) -> None:
    with GatewayEnv(tmp_path) as env, env.browser() as browser:
        browser.connect()
        env.akoya.fault("slow_after", "token.refresh_token", times=1, seconds=2.0)
        browser.fetch("/accounts/stale")
        assert isinstance(env.gateway, GatewayProcess)
        assert env.gateway.process is not None
        env.gateway.process.send_signal(signal.SIGTERM)
        statuses = []
        with httpx.Client(trust_env=False, timeout=60) as admin:
            while env.gateway.process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    statuses.append(admin.get(f"{env.admin_url}/livez").status_code)
                time.sleep(0.1)
        assert len(statuses) > 5
        assert set(statuses) == {200}


def test_ended_grant_returns_reconnect_to_jobs_requests_and_websockets(env: GatewayEnv, browser: Browser) -> None:
    """A consent revoked at the provider. A job gets 404: a 401 would mean that its own bearer token is wrong."""
    browser.connect()
    owner = browser.passed()["akoya-owner"]
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
    env.akoya.revoke_consent(user="mikomo_1")
    browser.fetch("/accounts/stale")
    deadline = time.monotonic() + 30
    while browser.fetch("/accounts").status_code != 401:
        assert time.monotonic() < deadline, "the grant did not end"
        time.sleep(0.05)
    assert browser.fetch("/accounts").json()["type"] == RECONNECT
    reply = fetch(env, params={"owner": owner})
    assert (reply.status_code, reply.json()["type"]) == (404, RECONNECT)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websockets.sync.client.connect(
            f"ws{env.url.removeprefix('http')}/accounts", additional_headers={"Cookie": cookie}, proxy=None
        )
    response = refused.value.response
    assert (response.status_code, json.loads(response.body)["type"]) == (401, RECONNECT)
