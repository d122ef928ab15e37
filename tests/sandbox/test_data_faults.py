"""Faults of the data APIs, by product and by bank."""

from __future__ import annotations

import httpx
import pytest

from akoya_gateway.sandbox import Fault, FaultKind, SandboxConnector, SandboxServer, SandboxSettings
from tests.support.sandbox_client import call, code_for, connect, redeem


@pytest.mark.parametrize(
    ("status", "options", "code"),
    [
        (401, {}, 602),
        (401, {"code": 601}, 601),
        (401, {"code": 0}, None),
        (403, {"code": 602}, 602),
        (403, {}, 403),
        (404, {}, 701),
        (408, {}, 408),
        (429, {}, 1207),
        (500, {}, 500),
        (501, {}, 501),
        (503, {}, 503),
    ],
)
def test_status_fault_has_the_documented_code_or_the_given_one(
    either: SandboxServer, status: int, options: dict[str, int], code: int | None
) -> None:
    token = connect(either)["id_token"]
    either.fault("status", "data", status=status, times=1, **options)
    response = call(either, "/balances/v2/mikomo", token)
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert len(response.headers["x-akoya-interaction-id"]) == 36
    assert call(either, "/balances/v2/mikomo", token).status_code == 200


def test_fault_of_one_product_does_not_affect_the_others(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["id_token"]
    akoya_sandbox.fault("status", "data.balances", status=503)
    assert call(akoya_sandbox, "/balances/v2/mikomo", token).status_code == 503
    assert call(akoya_sandbox, "/accounts/v2/mikomo", token).status_code == 200
    assert akoya_sandbox.events("data")[0]["product"] == "balances"


def test_fault_of_one_bank_does_not_affect_the_others() -> None:
    fault = Fault.parse_option("status@data,connector=second,status=500")
    connectors = (SandboxConnector(), SandboxConnector("second", "Second Bank"))
    with SandboxServer(SandboxSettings(connectors=connectors, faults=(fault,))) as server:
        second = redeem(server, code_for(server, connector="second")).json()["id_token"]
        assert call(server, "/balances/v2/second", second).status_code == 500
        assert call(server, "/balances/v2/mikomo", connect(server)["id_token"]).status_code == 200


@pytest.mark.parametrize("kind", ["slow", "slow_after"])
def test_response_slower_than_the_time_limit_becomes_408(kind: str) -> None:
    fault = Fault(FaultKind(kind), "data.balances", seconds=60)
    with SandboxServer(SandboxSettings(faults=(fault,), data_timeout=0.05)) as server:
        response = call(server, "/balances/v2/mikomo", connect(server)["id_token"])
        assert (response.status_code, response.json()["code"]) == (408, 408)


def test_partial_response_names_the_account_that_failed(akoya_sandbox: SandboxServer) -> None:
    token = connect(akoya_sandbox)["id_token"]
    akoya_sandbox.fault("partial", "data", times=1)
    response = call(akoya_sandbox, "/balances/v2/mikomo", token)
    good, _, failed = response.json()["accounts"]
    assert response.status_code == 206
    assert good["depositAccount"]["currentBalance"]
    assert failed == {"locAccount": {"error": {"code": 704, "message": "Account type not supported"}}}
    assert call(akoya_sandbox, "/balances/v2/mikomo", token).status_code == 200


@pytest.mark.parametrize("kind", ["cut_before", "cut_during", "cut_after"])
def test_data_connection_can_be_lost(akoya_sandbox: SandboxServer, kind: str) -> None:
    token = connect(akoya_sandbox)["id_token"]
    akoya_sandbox.fault(kind, "data.transactions", times=1)
    path = "/transactions/v2/mikomo/nosuch"
    with pytest.raises(httpx.RemoteProtocolError):
        call(akoya_sandbox, path, token)
    assert call(akoya_sandbox, path, token).status_code == 404


@pytest.mark.parametrize("options", [{"code": 602}, {"connector": "mikomo"}])
def test_properties_of_data_faults_are_refused_at_other_endpoints(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="data APIs"):
        Fault.parse({"kind": "status", "endpoint": "token"} | options)
