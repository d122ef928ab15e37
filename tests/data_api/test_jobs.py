"""Calls of background jobs, on the admin listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from akoya_verify.client import AsyncTokenClient, NeedsReconnect, TokenClient, Unavailable
from tests.data_api.conftest import BEARER, CHANGES
from tests.support.environment import Browser, GatewayEnv

PATH = "/akoya/data/mikomo/balances"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    settings = {"v3_rate_limit": None}
    folder = tmp_path_factory.mktemp("env")
    with GatewayEnv(folder, token_bearer=BEARER, settings=settings, changes=CHANGES) as env:
        yield env


def fetch(
    env: GatewayEnv, path: str = PATH, bearer: str = BEARER, method: str = "GET", **parameters: str
) -> httpx.Response:
    headers = {"authorization": f"Bearer {bearer}"}
    return httpx.request(
        method, env.admin_url + path, headers=headers, params=parameters or None, trust_env=False, timeout=30
    )


def problem(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def test_job_gets_the_data_of_its_owner_and_no_token(env: GatewayEnv, browser: Browser) -> None:
    passed = browser.passed()
    response = fetch(env, owner=passed["akoya-owner"], grant=passed["akoya-grant"], mode="standard")
    assert response.status_code == 200, response.text
    assert response.json()["accounts"]
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["x-request-id"]
    assert passed["akoya-id-token"] not in str(response.headers.raw) + response.text
    call = env.akoya.events("data")[-1]
    assert (call["path"], call["interaction_type"]) == ("/balances/v3/mikomo", "batch")
    assert call["last_access"] == passed["akoya-last-access"]
    assert "owner" not in str(call["path"])
    head = fetch(env, method="HEAD", owner=passed["akoya-owner"])
    assert (head.status_code, head.content) == (200, b"")


def test_wrong_requests_make_no_call(env: GatewayEnv, browser: Browser) -> None:
    owner = browser.passed()["akoya-owner"]
    before = len(env.akoya.events("data"))
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"bearer": "wrong", "owner": owner}, 401, "unauthorized"),
        ({}, 400, "no-owner"),
        ({"owner": "own_unknown"}, 404, "not-connected"),
        ({"owner": owner, "grant": "g_unknown"}, 404, "unknown-grant"),
        ({"owner": owner, "path": "/akoya/data/other/balances"}, 404, "not-connected"),
        ({"owner": owner, "path": "/akoya/data/nobank/balances"}, 404, "unknown-connector"),
        ({"owner": owner, "path": "/akoya/data/mikomo/nothing"}, 404, "unknown-product"),
        ({"owner": owner, "path": "/akoya/data/mikomo/transactions/a%2Fb"}, 400, "ambiguous-path"),
        ({"owner": owner, "method": "POST"}, 405, "method-not-allowed"),
    ]
    found = []
    for case, *_ in cases:
        response = fetch(env, **case)
        found.append((case, response.status_code, problem(response)))
        assert response.headers.get("allow") == ("GET, HEAD" if response.status_code == 405 else None)
    assert found == cases
    assert len(env.akoya.events("data")) == before


def test_job_of_a_consent_that_has_ended_gets_404(env: GatewayEnv) -> None:
    with env.browser() as browser:
        browser.connect(user="mikomo_4")
        owner = browser.passed()["akoya-owner"]
        env.akoya.revoke_consent(user="mikomo_4")
        response = fetch(env, owner=owner)
        assert (response.status_code, problem(response)) == (404, "reconnect")
        assert response.json()["connect_url"] == f"{env.url}/akoya/connect/mikomo"


def test_public_port_has_no_such_route(env: GatewayEnv, browser: Browser) -> None:
    response = browser.fetch(f"{PATH}?owner=x", headers={"authorization": f"Bearer {BEARER}"})
    assert response.status_code == 404


async def test_clients_of_akoya_verify_get_the_data_or_the_reason(env: GatewayEnv, browser: Browser) -> None:
    owner = browser.passed()["akoya-owner"]
    with TokenClient(env.admin_url, BEARER) as client:
        response = client.data("mikomo", owner, "balances", {"mode": "standard"})
        assert response.json()["accounts"]
        with pytest.raises(NeedsReconnect) as ended:
            client.data("other", owner, "balances")
        assert ended.value.url == f"{env.url}/akoya/connect/other"
        with pytest.raises(Unavailable) as refused:
            client.data("mikomo", owner, "nothing")
        assert (refused.value.status, refused.value.code) == (404, "unknown-product")
        for path in ("../../token/mikomo", "balances/../x", "", "/balances"):
            with pytest.raises(ValueError, match="is not the path of a product"):
                client.data("mikomo", owner, path)
        for connector in ("..", ".", ""):
            # httpx would request /akoya/token/mikomo for the first.
            with pytest.raises(ValueError, match="is no connector"):
                client.data(connector, owner, "token/mikomo")
        with pytest.raises(Unavailable) as refused:
            client.data("mikomo", owner, "balances%2f..%2f?owner=x#")
        assert refused.value.status == 400
        env.akoya.fault("status", "data.balances", times=1, status=404)
        assert client.data("mikomo", owner, "balances").status_code == 404
    async with AsyncTokenClient(env.admin_url, BEARER) as asynchronous:
        received = await asynchronous.data("mikomo", owner, "balances", grant=browser.passed()["akoya-grant"])
        assert received.json()["accounts"]
