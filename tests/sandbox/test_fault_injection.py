"""Injected faults, over real connections."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError

from akoya_gateway.sandbox import Fault, FaultKind, SandboxDialect, SandboxServer, SandboxSettings
from tests.support.sandbox_client import HTTP, call, code_for, connect, redeem, refresh, revoke


def claims(server: SandboxServer, token: str) -> dict[str, object]:
    keys = jwk.KeySet.import_key_set(HTTP.get(server.jwks_uri).json())
    return dict(jwt.decode(token, keys).claims)


def test_connection_cut_before_the_change_leaves_the_token_valid(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["refresh_token"]
    akoya_sandbox.fault("cut_before", "token.refresh_token", times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        refresh(akoya_sandbox, token)
    assert refresh(akoya_sandbox, token).status_code == 200


def test_connection_cut_after_the_change_has_consumed_the_token(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["refresh_token"]
    akoya_sandbox.fault("cut_after", "token.refresh_token", times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        refresh(akoya_sandbox, token)
    event = akoya_sandbox.events("token")[-1]
    assert (event["outcome"], event["faults"]) == ("issued", ["cut_after"])
    assert refresh(akoya_sandbox, token).status_code == 400


def test_connection_cut_during_the_response_truncates_it(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["refresh_token"]
    akoya_sandbox.fault("cut_during", "token.refresh_token", times=1)
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|without sending complete"):
        refresh(akoya_sandbox, token)
    assert refresh(akoya_sandbox, token).status_code == 400


def test_connection_cut_at_the_code_grant_consumes_the_code(akoya_sandbox: SandboxServer) -> None:
    code = code_for(akoya_sandbox)
    akoya_sandbox.fault("cut_after", "token.authorization_code", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        redeem(akoya_sandbox, code)
    assert redeem(akoya_sandbox, code).status_code == 400


@pytest.mark.parametrize(("kind", "spent"), [("status", False), ("status_after", True)])
def test_5xx_fault_before_or_after_the_change_is_returned(akoya_sandbox: SandboxServer, kind: str, spent: bool) -> None:
    token = connect(akoya_sandbox)["refresh_token"]
    akoya_sandbox.fault(kind, "token", status=502, times=1)
    assert refresh(akoya_sandbox, token).status_code == 502
    assert refresh(akoya_sandbox, token).status_code == (400 if spent else 200)


def test_fault_with_a_status_without_content_sends_no_body(
    akoya_sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    urls = {"jwks": akoya_sandbox.jwks_uri, "data": f"{akoya_sandbox.url}/accounts/v2/mikomo"}
    for kind, endpoint in (("status", "token"), ("html", "jwks"), ("status", "data")):
        for status in (204, 205, 304):
            akoya_sandbox.fault(kind, endpoint, status=status, times=1)
            response = HTTP.get(urls[endpoint]) if endpoint in urls else refresh(akoya_sandbox, "any")
            assert (response.status_code, response.content) == (status, b"")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("kind", "spent"), [("slow", False), ("slow_after", True)])
def test_slow_response_before_or_after_the_change(akoya_sandbox: SandboxServer, kind: str, spent: bool) -> None:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": connect(akoya_sandbox)["refresh_token"],
        "client_id": akoya_sandbox.client_id,
        "client_secret": akoya_sandbox.client_secret,
    }

    def refreshes() -> list[dict[str, Any]]:
        return [event for event in akoya_sandbox.events("token") if event["grant_type"] == "refresh_token"]

    akoya_sandbox.fault(kind, "token.refresh_token", seconds=60, times=1)
    with pytest.raises(httpx.ReadTimeout):
        HTTP.post(f"{akoya_sandbox.url}/token", data=form, timeout=httpx.Timeout(20, read=0.3))
    deadline = time.monotonic() + 60
    while spent and not refreshes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [event["outcome"] for event in refreshes()] == (["issued"] if spent else [])


def test_slow_fault_delays_the_response(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("slow", "jwks", seconds=0.2, times=1)
    began = time.monotonic()
    assert HTTP.get(akoya_sandbox.jwks_uri).status_code == 200
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("kind", ["html", "garbage"])
def test_fault_returns_a_body_other_than_json(akoya_sandbox: SandboxServer, kind: str) -> None:
    token = connect(akoya_sandbox)["refresh_token"]
    akoya_sandbox.fault(kind, "token", times=1)
    response = refresh(akoya_sandbox, token)
    assert response.status_code == 200
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        response.json()
    assert refresh(akoya_sandbox, token).status_code == 200


def test_fault_changes_the_sub_on_refresh(akoya_sandbox: SandboxServer) -> None:
    first = connect(akoya_sandbox)
    akoya_sandbox.fault("wrong_sub", "token.refresh_token", times=1)
    second = refresh(akoya_sandbox, first["refresh_token"]).json()
    assert claims(akoya_sandbox, first["id_token"])["sub"] != claims(akoya_sandbox, second["id_token"])["sub"]


def test_claims_can_be_changed_and_removed(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("claims", claims={"iss": "https://evil.example/", "sub": None}, times=1)
    found = claims(akoya_sandbox, connect(akoya_sandbox)["id_token"])
    assert found["iss"] == "https://evil.example/"
    assert "sub" not in found


def test_fault_expires_the_id_token(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("lifetime", seconds=-10, times=1)
    tokens = connect(akoya_sandbox)
    assert tokens["expires_in"] == 86_400
    assert call(akoya_sandbox, "/balances/v2/mikomo", tokens["id_token"]).json()["code"] == 602


def test_fault_breaks_the_signature(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("bad_signature", times=1)
    tokens = connect(akoya_sandbox)
    with pytest.raises(BadSignatureError):
        claims(akoya_sandbox, tokens["id_token"])
    assert call(akoya_sandbox, "/balances/v2/mikomo", tokens["id_token"]).json()["code"] == 602


def test_faults_rotate_and_disable_the_keys(akoya_sandbox: SandboxServer) -> None:
    def kids() -> list[str]:
        return [key["kid"] for key in HTTP.get(akoya_sandbox.jwks_uri).json()["keys"]]

    before = kids()
    akoya_sandbox.fault("rotate_keys", times=1)
    connect(akoya_sandbox)
    assert not set(before) & set(kids())
    akoya_sandbox.fault("status", "jwks", status=503)
    assert HTTP.get(akoya_sandbox.jwks_uri).status_code == 503
    akoya_sandbox.clear_faults()
    assert kids()


def test_fault_rotates_the_client_secret(akoya_sandbox: SandboxServer) -> None:
    token, old = connect(akoya_sandbox)["refresh_token"], akoya_sandbox.client_secret
    akoya_sandbox.fault("secret_rotated", "*", times=1)
    assert refresh(akoya_sandbox, token).status_code == 401
    akoya_sandbox.rotate_secret("a~new~secret~of~some~length")
    assert refresh(akoya_sandbox, token, client_secret=old).status_code == 401
    assert revoke(akoya_sandbox, token, client_secret=old).status_code == 401
    assert refresh(akoya_sandbox, token).status_code == 200


@pytest.mark.parametrize(("dialect", "error"), [("dex", "invalid_request"), ("hydra", "invalid_grant")])
def test_invalidated_refresh_token_stays_invalid(dialect: str, error: str) -> None:
    with SandboxServer(SandboxSettings(dialect=SandboxDialect(dialect))) as server:
        token = connect(server)["refresh_token"]
        server.fault("dead_token", "token.refresh_token", times=1)
        for _ in range(2):
            response = refresh(server, token)
            assert (response.status_code, response.json()["error"]) == (400, error)


def test_data_fault_has_the_shape_of_a_data_error(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["id_token"]
    akoya_sandbox.fault("status", "data", status=429, times=1)
    response = call(akoya_sandbox, "/balances/v2/mikomo", token)
    assert (response.status_code, response.json()["code"]) == (429, 1207)


def test_faults_are_counted_down_one_request_each(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("status", "jwks", status=500, times=2)
    statuses = [HTTP.get(akoya_sandbox.jwks_uri).status_code for _ in range(3)]
    assert statuses == [500, 500, 200]


def test_faults_of_the_settings_come_back_with_a_reset() -> None:
    settings = SandboxSettings(faults=(Fault(FaultKind.STATUS, "jwks", status=500, times=1),))
    with SandboxServer(settings) as server:
        assert HTTP.get(server.jwks_uri).status_code == 500
        assert HTTP.get(server.jwks_uri).status_code == 200
        server.reset()
        assert HTTP.get(server.jwks_uri).status_code == 500


def test_fault_of_probability_zero_never_happens_and_of_a_half_sometimes() -> None:
    settings = SandboxSettings(faults=(Fault(FaultKind.STATUS, "jwks", status=500, probability=0.0),))
    with SandboxServer(settings) as server, httpx.Client(trust_env=False, timeout=60) as http:
        assert {http.get(server.jwks_uri).status_code for _ in range(20)} == {200}
        server.fault("status", "jwks", status=500, probability=0.5)
        assert {http.get(server.jwks_uri).status_code for _ in range(100)} == {200, 500}


def test_faults_from_the_command_line() -> None:
    fault = Fault.parse_option("cut_after@token.refresh_token, times=2, probability=0.5")
    assert fault == Fault(FaultKind.CUT_AFTER, "token.refresh_token", times=2, probability=0.5)
    assert Fault.parse_option("slow,seconds=1.5") == Fault(FaultKind.SLOW, seconds=1.5)


@pytest.mark.parametrize(
    "text",
    ["", "boom", "slow@nowhere", "slow,times=0", "slow,times=x", "slow,probability=2", "slow,seconds", "slow,x=1",
     "status,status=99"],
)  # fmt: skip
def test_fault_with_contradictory_properties_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Fault.parse_option(text)
