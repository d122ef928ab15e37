"""Calls of the data API over real sockets, at every entry point: what goes out, what comes back, and each error."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.data_api.conftest import CHANGES
from tests.support.environment import Browser, GatewayEnv
from tests.support.waiting import until

PATH = "/bank-data/mikomo/balances"
CONFINED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox",
    "cache-control": "private, no-store",
}


def last_calls(env: GatewayEnv, since: int) -> list[dict[str, Any]]:
    return [event for event in env.akoya.events("data") if event["n"] > since]


def count(env: GatewayEnv) -> int:
    return max((event["n"] for event in env.akoya.events()), default=0)


def problem(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def test_call_has_the_token_and_the_context_and_the_response_is_confined(env: GatewayEnv, browser: Browser) -> None:
    since = count(env)
    response = browser.fetch(f"{PATH}?mode=standard")
    assert response.status_code == 200, response.text
    assert response.json()["accounts"]
    assert {name: response.headers[name] for name in CONFINED} == CONFINED
    assert response.headers["x-akoya-interaction-id"]
    assert response.headers["x-request-id"]
    (call,) = last_calls(env, since)
    assert (call["path"], call["product"]) == ("/balances/v3/mikomo", "balances")
    assert (call["interaction_type"], call["intent_type"]) == ("user", "nonpayments")
    assert call["last_access"]
    assert call["id_token"]


def test_rest_of_the_path_and_the_query_go_along_without_the_grant_selector(env: GatewayEnv, browser: Browser) -> None:
    account = browser.fetch(PATH).json()["accounts"][0]
    (inner,) = account.values()
    (connection,) = browser.connections()["connections"]
    since = count(env)
    response = browser.fetch(
        f"/bank-data/mikomo/transactions/{inner['accountId']}", params={"limit": "2", "login": connection["id"]}
    )
    assert response.status_code == 200, response.text
    assert len(response.json()["transactions"]) == 2
    (call,) = last_calls(env, since)
    assert call["path"] == f"/transactions/v3/mikomo/{inner['accountId']}"
    assert browser.fetch(PATH, params={"login": "g_unknown"}).status_code == 404


def test_head_gets_the_headers_of_get_without_a_body(browser: Browser) -> None:
    response = browser.fetch(PATH, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/json"


def test_requests_that_make_no_call_are_refused(env: GatewayEnv, browser: Browser) -> None:
    since = count(env)
    expected = {
        ("GET", "/bank-data/mikomo/nothing"): (404, "unknown-product"),
        ("GET", "/bank-data/mikomo/payments/1/payment-networks"): (404, "unknown-product"),
        ("GET", "/bank-data/mikomo/"): (404, "unknown-product"),
        ("POST", PATH): (405, "method-not-allowed"),
        ("GET", "/bank-data/nobank/balances"): (404, "unknown-connector"),
        ("GET", "/bank-data/other/balances"): (401, "not-connected"),
        ("GET", "/bank-data/mikomo/transactions/a%2Fb"): (400, "ambiguous-path"),
        ("GET", "/bank-data/mikomo/transactions/a%3Bb"): (400, "ambiguous-path"),
    }
    found = {}
    for method, path in expected:
        response = browser.fetch(path, method)
        found[method, path] = (response.status_code, problem(response))
    assert found == expected
    assert last_calls(env, since) == []
    with env.browser() as other_browser:
        assert other_browser.fetch(PATH).status_code == 401


FAULTS: list[tuple[dict[str, Any], int, str, int]] = [
    # the fault; the status and the problem for the client (empty: Akoya's own body), and the number of calls
    ({"kind": "partial"}, 206, "", 1),
    ({"kind": "status", "status": 404}, 404, "", 1),
    ({"kind": "status", "status": 400}, 400, "", 1),
    ({"kind": "status", "status": 409}, 409, "", 1),
    ({"kind": "status", "status": 501}, 501, "", 1),
    ({"kind": "status", "status": 403, "code": 403}, 403, "", 1),
    ({"kind": "status", "status": 408}, 504, "bank-timeout", 1),
    ({"kind": "status", "status": 302}, 502, "bank-redirect", 1),
    ({"kind": "status", "status": 503}, 503, "bank-unavailable", 4),
    ({"kind": "status", "status": 502}, 503, "bank-unavailable", 4),
    ({"kind": "status", "status": 504}, 503, "bank-unavailable", 4),
    ({"kind": "status", "status": 500}, 503, "bank-unavailable", 4),
    ({"kind": "cut_before"}, 503, "bank-unavailable", 4),
    ({"kind": "status", "status": 503, "times": 3}, 200, "", 4),
    ({"kind": "cut_before", "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 429, "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 403, "code": 1207, "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 401, "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 401, "code": 0, "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 403, "code": 602, "times": 1}, 200, "", 2),
    ({"kind": "status", "status": 401, "code": 601, "times": 1}, 200, "", 2),
]


GROUPS = ("accounts-info", "balances", "accounts")
"""Products at which the faults are tested concurrently: most of the time is spent in pauses."""


def outcome_of(
    env: GatewayEnv, browser: Browser, product: str, fault: dict[str, Any], calls: int
) -> tuple[int, str, int]:
    """Return the status, the problem and the number of calls of a request under a fault."""
    options = {"times": calls, **fault}
    env.akoya.fault(options.pop("kind"), f"data.{product}", **options)
    since = count(env)
    response = browser.fetch(f"/bank-data/mikomo/{product}")
    own = response.headers["content-type"] == "application/problem+json"
    assert own or {name: response.headers.get(name) for name in CONFINED} == CONFINED, fault
    assert "location" not in response.headers
    made = len([event for event in last_calls(env, since) if event["product"] == product])
    return response.status_code, problem(response) if own else "", made


def test_every_error_of_akoya_has_its_meaning(env: GatewayEnv, browser: Browser) -> None:
    def run(product: str, rows: list[Any]) -> list[Any]:
        return [(fault, *outcome_of(env, browser, product, fault, calls)) for fault, _, _, calls in rows]

    with ThreadPoolExecutor() as pool:
        groups = [FAULTS[start :: len(GROUPS)] for start in range(len(GROUPS))]
        found = list(pool.map(run, GROUPS, groups))
    assert found == groups


def test_end_of_the_time_is_bank_timeout_or_too_many_requests(tmp_path: Path) -> None:
    changes = {**CHANGES, "upstreams": {"bank-data": {"data_api": "double", "timeout": "8s"}}}
    with GatewayEnv(tmp_path, settings={"v3_rate_limit": None}, changes=changes) as env, env.browser() as browser:
        browser.connect()
        env.akoya.fault("slow", "data.tax-forms", seconds=30.0)
        env.akoya.fault("status", "data.customers", status=429)
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(browser.fetch, "/bank-data/mikomo/tax-forms", timeout=60)
            limited = pool.submit(browser.fetch, "/bank-data/mikomo/customers/current", timeout=60)
        assert (slow.result().status_code, problem(slow.result())) == (504, "bank-timeout")
        assert (limited.result().status_code, problem(limited.result())) == (429, "too-many-requests")
        assert int(limited.result().headers["retry-after"]) >= 1


def test_rejected_fresh_token_is_not_entitled_and_is_not_refreshed_again_at_once(
    env: GatewayEnv, browser: Browser
) -> None:
    env.akoya.fault("status", "data.customers", status=401, code=602)
    refreshes = len([event for event in env.akoya.events("token") if event.get("grant_type") == "refresh_token"])
    responses = [browser.fetch("/bank-data/mikomo/customers/current") for _ in range(3)]
    assert [(one.status_code, problem(one)) for one in responses] == [(403, "not-entitled")] * 3
    assert responses[0].headers["x-akoya-interaction-id"]
    after = len([event for event in env.akoya.events("token") if event.get("grant_type") == "refresh_token"])
    assert after - refreshes <= 1
    assert browser.fetch(PATH).status_code == 200


@pytest.mark.parametrize("code", [601, 602])
def test_consent_that_has_ended_is_reconnect_with_its_connect_url(env: GatewayEnv, code: int) -> None:
    with env.browser() as browser:
        browser.connect(user="mikomo_4")
        assert browser.fetch(PATH).status_code == 200
        env.akoya.revoke_consent(user="mikomo_4", code=code)
        response = browser.fetch(PATH)
        assert (response.status_code, problem(response)) == (401, "reconnect")
        assert response.json()["connect_url"].startswith(f"{env.url}/akoya/connect/mikomo")
        assert response.json()["connectors"] == ["mikomo"]
        # From now on the grant itself says so, without a call.
        since = count(env)
        assert browser.fetch(PATH).status_code == 401
        assert last_calls(env, since) == []


def test_response_that_is_cut_is_seen_as_incomplete(env: GatewayEnv, browser: Browser) -> None:
    env.akoya.fault("cut_during", "data.balances", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        browser.fetch(PATH)
    assert browser.fetch(PATH).status_code == 200


def test_client_that_leaves_ends_the_call(env: GatewayEnv, browser: Browser) -> None:
    env.akoya.fault("slow", "data.balances", seconds=60.0, times=1)
    since = count(env)
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
    head = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nCookie: {cookie}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", env.port), 30) as client:
        client.sendall(head.encode())
        until(lambda: not httpx.get(f"{env.akoya.url}/_sandbox/faults").json()["faults"], "the call has arrived")
    until(lambda: [e for e in last_calls(env, since) if e["outcome"] == "caller_gone"], "the call has ended")
    assert browser.fetch(PATH).status_code == 200


def test_websocket_to_a_data_api_is_refused(env: GatewayEnv, browser: Browser) -> None:
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", env.port), 30) as client:
        client.sendall(head.encode())
        status = client.recv(4096).split(b" ", 2)[1]
    assert status in (b"404", b"403")
