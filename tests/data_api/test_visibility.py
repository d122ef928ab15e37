"""What operators and users see of calls: the log, metrics, notes, the connections page and `doctor`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from akoya_gateway.config import load_config
from akoya_gateway.doctor.data_call import check_data_call
from tests.data_api.conftest import CHANGES
from tests.support.commands import run_command
from tests.support.environment import Browser, GatewayEnv
from tests.support.metrics import values
from tests.support.waiting import until

PATH = "/bank-data/mikomo/balances"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    settings = {"v3_rate_limit": None}
    with GatewayEnv(tmp_path_factory.mktemp("env"), settings=settings, changes=CHANGES) as env:
        yield env


def admin(env: GatewayEnv, path: str) -> httpx.Response:
    return httpx.get(env.admin_url + path, trust_env=False, timeout=30)


def metrics_of(env: GatewayEnv) -> dict[str, float]:
    return values(admin(env, "/metrics").content)


def logged(env: GatewayEnv, request_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in env.log().splitlines() if '"data api called"' in line]
    return [line for line in lines if line["request_id"] == request_id]


def test_call_is_logged_with_akoyas_interaction_id_and_counted(env: GatewayEnv, browser: Browser) -> None:
    before = metrics_of(env)
    env.akoya.fault("status", "data.balances", times=1, status=404)
    responses = [browser.fetch(PATH), browser.fetch(PATH)]
    found = []
    request_ids = [response.headers["x-request-id"] for response in responses]
    until(lambda: all(logged(env, number) for number in request_ids), "the calls are logged")
    for response, request_id in zip(responses, request_ids, strict=True):
        (line,) = logged(env, request_id)
        found.append(tuple(line[name] for name in ("connector", "product", "status", "result", "attempts")))
        assert line["interaction"] == response.headers["x-akoya-interaction-id"]
        assert line["grant"].startswith("g_")
    assert found == [("mikomo", "balances", 404, "rejected", 1), ("mikomo", "balances", 200, "ok", 1)]
    metrics = metrics_of(env)
    for result in ("ok", "rejected"):
        name = f"akoya_gateway_data_calls_total{{connector=mikomo,product=balances,result={result}}}"
        assert metrics[name] == before[name] + 1
    name = "akoya_gateway_data_call_duration_seconds_count{connector=mikomo,product=balances}"
    assert metrics[name] == before.get(name, 0) + 2
    assert metrics["akoya_gateway_data_calls_total{connector=other,product=tax-forms,result=limited}"] == 0


def test_bank_that_does_not_respond_is_shown_until_it_does(env: GatewayEnv, browser: Browser) -> None:
    env.akoya.fault("status", "data.tax-forms", status=408)
    for _ in range(3):
        response = browser.fetch("/bank-data/mikomo/tax-forms")
        assert response.status_code == 504
        assert response.headers["x-akoya-interaction-id"]
    (connection,) = browser.connections()["connections"]
    assert connection["bank"] == "unavailable"
    assert "The bank is not responding" in browser.go("/akoya/").text

    def notes() -> list[str]:
        return [note for note in admin(env, "/readyz").json()["notes"] if "connector mikomo" in note]

    until(notes, "readyz has the note")
    assert admin(env, "/readyz").status_code == 200
    assert browser.fetch(PATH).status_code == 200
    (connection,) = browser.connections()["connections"]
    assert "bank" not in connection
    until(lambda: not notes(), "readyz no longer has the note")


def test_doctor_calls_a_product_with_the_grant_of_the_operators_choice(env: GatewayEnv, browser: Browser) -> None:
    (connection,) = browser.connections()["connections"]
    path = env.gateway.log.parent / "gateway.yaml"
    options = ("--grant", connection["id"], "--product", "balances", "--format", "json", "--config", str(path))
    done = run_command("doctor", "--no-credentials", *options, environ=env.environ)
    found = json.loads(done.stdout)["findings"][-1]
    assert (found["about"], found["verdict"]) == ("data API balances", "fine")
    assert found["says"].startswith("200, interaction ID ")
    config = load_config(path, env.environ)
    env.akoya.fault("status", "data.accounts-info", status=401, times=1)
    rejected = asyncio.run(check_data_call(config, connection["id"], "accounts-info"))
    assert rejected.verdict == "fault"
    assert rejected.says.startswith("401, code 602, interaction ID ")
    assert asyncio.run(check_data_call(config, "g_unknown", "balances")).says == "there is no grant g_unknown"
    assert asyncio.run(check_data_call(config, connection["id"], "nothing")).verdict == "fault"
