"""The data APIs (docs/akoya.md sections 6 and 8)."""

from __future__ import annotations

import httpx
import pytest

from akoya_gateway.sandbox import SandboxConnector, SandboxServer, SandboxSettings
from tests.support.sandbox_client import HTTP, authorization_url, call, code_for, connect, query_of, redeem


@pytest.mark.parametrize("product", ["accounts-info", "balances", "accounts"])
def test_products_accept_the_id_token(either: SandboxServer, product: str) -> None:
    response = call(either, f"/{product}/v2/mikomo?mode=standard", connect(either)["id_token"])
    assert response.status_code == 200
    assert len(response.json()["accounts"]) == 3
    assert len(response.headers["x-akoya-interaction-id"]) == 36


def test_balances_have_amounts_and_payloads_are_static(dex: SandboxServer) -> None:
    first, second = (
        call(dex, "/balances/v2/mikomo", connect(dex)["id_token"]).json()["accounts"][0]["depositAccount"]
        for _ in range(2)
    )
    assert isinstance(first["currentBalance"], float)
    assert first["currentBalance"] == second["currentBalance"]


def test_customer_and_the_transactions(dex: SandboxServer) -> None:
    tokens = connect(dex)
    assert call(dex, "/customers/v2/mikomo/current", tokens["id_token"]).json()["customer"]["name"]["first"]
    accounts = call(dex, "/accounts-info/v2/mikomo", tokens["id_token"]).json()["accounts"]
    path = f"/transactions/v2/mikomo/{accounts[0]['depositAccount']['accountId']}"
    found = call(dex, path, tokens["id_token"]).json()["transactions"]
    assert len(found) == 50
    some = call(dex, f"{path}?limit=2&offset=1", tokens["id_token"]).json()["transactions"]
    assert some == found[1:3]
    span = "startTime=2024-02-01T00:00:00Z&endTime=2024-02-29T00:00:00Z"
    dates = [
        next(iter(t.values()))["postedTimestamp"]
        for t in call(dex, f"{path}?{span}", tokens["id_token"]).json()["transactions"]
    ]
    assert dates
    assert all(date.startswith("2024-02") for date in dates)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("startTime=yesterday", 400, 702),
        ("endTime=2024-13-01", 400, 702),
        ("startTime=2024-02-02&endTime=2024-02-01", 400, 703),
        ("limit=many", 400, 400),
        ("offset=-1", 400, 400),
    ],
)
def test_invalid_transaction_queries_are_refused(dex: SandboxServer, query: str, status: int, code: int) -> None:
    tokens = connect(dex)
    accounts = call(dex, "/accounts-info/v2/mikomo", tokens["id_token"]).json()["accounts"]
    response = call(
        dex, f"/transactions/v2/mikomo/{accounts[0]['depositAccount']['accountId']}?{query}", tokens["id_token"]
    )
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_only_consented_accounts_are_returned(dex: SandboxServer) -> None:
    every = call(dex, "/accounts-info/v2/mikomo", connect(dex)["id_token"]).json()["accounts"]
    ids = [next(iter(account.values()))["accountId"] for account in every]
    code = query_of(dex.consent(authorization_url(dex), "mikomo_1", ids[:1]))["code"]
    token = redeem(dex, code).json()["id_token"]
    assert len(call(dex, "/balances/v2/mikomo", token).json()["accounts"]) == 1
    assert call(dex, f"/transactions/v2/mikomo/{ids[0]}", token).status_code == 200
    refused = call(dex, f"/transactions/v2/mikomo/{ids[1]}", token)
    assert (refused.status_code, refused.json()["code"]) == (404, 701)


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer x.y.z", "Basic eDp5", "Bearer " + "a" * 5000])
def test_request_without_a_valid_id_token_gets_602(dex: SandboxServer, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = HTTP.get(f"{dex.url}/balances/v2/mikomo", headers=headers)
    assert response.status_code == 401
    assert response.json()["code"] == 602
    assert set(response.json()) == {"code", "message", "debugMessage"}
    assert "x-akoya-interaction-id" in response.headers


def test_access_token_and_refresh_token_are_refused_as_bearers() -> None:
    with SandboxServer(SandboxSettings(access_token=True)) as server:
        tokens = connect(server)
        for name in ("access_token", "refresh_token"):
            assert call(server, "/balances/v2/mikomo", tokens[name]).json()["code"] == 602


def test_token_of_another_emulator_is_refused_as_a_bearer(dex: SandboxServer, hydra: SandboxServer) -> None:
    assert call(dex, "/balances/v2/mikomo", connect(hydra)["id_token"]).json()["code"] == 602


@pytest.mark.parametrize(
    ("code", "status"),
    [(500, 500), (501, 501), (601, 404), (602, 401), (701, 404), (702, 400), (703, 400), (704, 400)],
)
def test_error_users_connect_and_then_fail_at_the_data(dex: SandboxServer, code: int, status: int) -> None:
    response = call(dex, "/accounts-info/v2/mikomo", connect(dex, f"mikomo_{code}")["id_token"])
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert isinstance(response.json()["code"], int)


def test_another_provider_or_version_is_forbidden() -> None:
    connectors = (SandboxConnector(), SandboxConnector("second", "Second Bank"))
    with SandboxServer(SandboxSettings(connectors=connectors)) as server:
        mikomo = connect(server)["id_token"]
        second = redeem(server, code_for(server, connector="second")).json()["id_token"]
        assert call(server, "/balances/v2/second", mikomo).status_code == 403
        assert call(server, "/balances/v2/second", second).status_code == 200
        assert call(server, "/balances/v1/mikomo", mikomo).status_code == 403
        assert call(server, "/balances/v2/nobank", mikomo).status_code == 403


def test_v2_requests_over_the_rate_limit_return_1207() -> None:
    with SandboxServer(SandboxSettings(rate_limit=5), clock=lambda: 1_790_000_000.0) as server:
        token = connect(server)["id_token"]
        with httpx.Client(trust_env=False, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:
            responses = [http.get(f"{server.url}/balances/v2/mikomo") for _ in range(6)]
        assert [response.status_code for response in responses] == [200] * 5 + [429]
        assert responses[-1].json()["code"] == 1207
        server.advance(2)
        assert call(server, "/balances/v2/mikomo", token).status_code == 200
