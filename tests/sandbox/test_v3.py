"""What v3 of the data APIs requires beyond v2: the context headers, and five requests a second."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from akoya_gateway.sandbox import SandboxServer, SandboxSettings
from tests.support.sandbox_client import call, connect

FROZEN = 1_790_000_000.0
V3 = {"x_akoya_interaction_type": "user", "x_akoya_last_access": "2026-01-02T03:04:05Z"}


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(v3_rate_limit=None)) as running:
        yield running


@pytest.fixture(scope="module")
def token(server: SandboxServer) -> str:
    return str(connect(server)["id_token"])


def at(offset: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset))


@pytest.mark.parametrize("kind", ["user", "batch", "USER"])
def test_v3_accepts_each_interaction_type(server: SandboxServer, token: str, kind: str) -> None:
    headers = V3 | {"x_akoya_interaction_type": kind}
    assert call(server, "/balances/v3/mikomo", token, **headers).status_code == 200


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"x_akoya_interaction_type": ""}, "interaction-type"),
        ({"x_akoya_interaction_type": "robot"}, "interaction-type"),
        ({"x_akoya_last_access": ""}, "last-access"),
        ({"x_akoya_last_access": "yesterday"}, "last-access"),
        ({"x_akoya_last_access": "2026-01-02T03:04:05"}, "last-access"),
        ({"x_akoya_last_access": "2026-01-02T03:04:05+02:00"}, "last-access"),
        ({"x_akoya_intent_type": "shopping"}, "intent-type"),
    ],
)
def test_v3_with_a_missing_or_invalid_context_header_returns_400(
    server: SandboxServer, token: str, changes: dict[str, str], named: str
) -> None:
    response = call(server, "/balances/v3/mikomo", token, **(V3 | changes))
    assert response.status_code == 400
    assert named in response.json()["debugMessage"]


def test_v2_requires_no_context_header(server: SandboxServer, token: str) -> None:
    assert call(server, "/balances/v2/mikomo", token).status_code == 200


def test_v3_payments_require_the_payments_intent(server: SandboxServer, token: str) -> None:
    account = call(server, "/accounts-info/v2/mikomo", token).json()["accounts"][0]["depositAccount"]["accountId"]
    path = f"/payments/v3/mikomo/{account}/payment-networks"
    statuses = [
        call(server, path, token, **(V3 | intent)).status_code
        for intent in ({}, {"x_akoya_intent_type": "nonpayments"}, {"x_akoya_intent_type": "payments"})
    ]
    assert statuses == [400, 400, 200]


def test_stale_last_access_is_refused_for_a_user_and_accepted_for_a_batch() -> None:
    with SandboxServer(SandboxSettings(max_last_access_age=600)) as server:
        token = connect(server)["id_token"]
        rows = [("user", -5, 200), ("user", -3_600, 400), ("batch", -86_400, 200), ("batch", 3_600, 400)]
        for kind, offset, expected in rows:
            headers = {"x_akoya_interaction_type": kind, "x_akoya_last_access": at(offset)}
            response = call(server, "/balances/v3/mikomo", token, **headers)
            assert (kind, offset, response.status_code) == (kind, offset, expected)
            server.advance(2)


def test_v3_allows_five_requests_a_second() -> None:
    with SandboxServer(clock=lambda: FROZEN) as server:
        token = connect(server)["id_token"]
        headers = {
            "authorization": f"Bearer {token}",
            "x-akoya-interaction-type": "batch",
            "x-akoya-last-access": "2026-01-02T03:04:05Z",
        }
        with httpx.Client(trust_env=False, timeout=60, headers=headers) as http:
            responses = [http.get(f"{server.url}/balances/v3/mikomo") for _ in range(6)]
            assert http.get(f"{server.url}/balances/v2/mikomo").status_code == 200
            assert [response.status_code for response in responses] == [200] * 5 + [429]
            assert responses[-1].json()["code"] == 1207
            server.advance(1)
            assert http.get(f"{server.url}/balances/v3/mikomo").status_code == 200


def test_events_name_the_product_and_the_context(server: SandboxServer, token: str) -> None:
    call(server, "/customers/v3/mikomo/current", token, **(V3 | {"x_akoya_intent_type": "nonpayments"}))
    event = server.events("data")[-1]
    names = ("product", "provider", "interaction_type", "last_access", "intent_type", "status")
    assert [event[name] for name in names] == [
        "customers",
        "mikomo",
        "user",
        "2026-01-02T03:04:05Z",
        "nonpayments",
        200,
    ]
