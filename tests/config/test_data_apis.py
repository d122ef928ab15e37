"""Upstreams that are Akoya's data API: what is read, and what `check` refuses and warns about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import Config, Intent
from akoya_gateway.config.presets import PRODUCTS
from tests.support.config_documents import error_lines, validated, warning_lines

DATA = {"data_api": "sandbox"}
RULE = {"path": "/bank-data/{connector}/*", "require": "{connector}", "upstream": "bank-data", "pass_token": False}
ENDPOINTS = {
    "authorization_endpoint": "https://idp.example.com/auth",
    "token_endpoint": "https://idp.example.com/token",
    "products_url": "https://products.example.com/bank/",
}
CLIENT = {
    "environment": "other",
    "client_id": "other",
    "client_secret": {"env": "CLIENT_SECRET"},
    "redirect_uri": "https://app.example.com/akoya/callback",
}


def document(data: Any = DATA, rule: Any = RULE, **changes: Any) -> dict[str, Any]:
    return {"upstreams.bank-data": data, "access": [rule], **changes}


def config(folder: Path, changes: dict[str, Any]) -> Config:
    result = validated(folder, changes)
    assert result.config is not None, error_lines(result)
    return result.config


def test_data_api_without_settings_has_the_documented_defaults(tmp_path: Path) -> None:
    made = config(tmp_path, document())
    api = made.data_apis["bank-data"]
    assert (api.version, api.intent, api.timeout) == ("v3", Intent.NONPAYMENTS, 12.0)
    assert api.products == PRODUCTS - {"payments"}
    assert api.base_url == "https://sandbox-products.ddp.akoya.com"
    assert api.environment.data_rate == 5.0
    assert made.access[0].data_api is api
    assert made.access[0].upstream is None
    assert made.access[0].pass_token is False
    assert made.all_upstreams == ()


def test_data_api_with_settings_has_them(tmp_path: Path) -> None:
    data = {"data_api": "other", "version": "v2", "intent": "payments", "products": ["payments", "x"], "timeout": "3s"}
    changes = {"environments.other": {**ENDPOINTS, "data_rate": 2.5}, "clients.other": CLIENT}
    connectors = {"mikomo": {"client": "other"}}
    made = config(tmp_path, document(data, **changes, connectors=connectors))
    api = made.data_apis["bank-data"]
    assert (api.version, api.intent, api.timeout) == ("v2", Intent.PAYMENTS, 3.0)
    assert api.products == {"payments", "x"}
    assert api.base_url == "https://products.example.com/bank"
    assert api.environment.data_rate == 2.5


def test_production_has_no_data_rate_of_its_own(tmp_path: Path) -> None:
    changes = {"environments.production": {"preset": "akoya-production"}}
    assert config(tmp_path, document(**changes)).environments["production"].data_rate is None


def test_apps_beside_a_data_api_stay_apps(tmp_path: Path) -> None:
    app = {"path": "/*", "require": "any", "pass_token": False}
    made = config(tmp_path, document(access=[RULE, app], upstream={"url": "http://127.0.0.1:3000"}))
    assert made.access[0].upstream is None
    assert made.access[1].upstream == made.upstream
    assert made.access[1].data_api is None


REFUSED = [
    (document({"data_api": "sandbx"}), 'upstreams.bank-data.data_api: no environment named "sandbx" (did you mean'),
    (document({**DATA, "url": "http://127.0.0.1:1"}), 'upstreams.bank-data.url: unknown key "url"'),
    (document({**DATA, "version": "3"}), "upstreams.bank-data.version: expected a version such as v3"),
    (document({**DATA, "version": "v3/../x"}), "upstreams.bank-data.version: expected a version such as v3"),
    (document({**DATA, "products": ["a/b"]}), "upstreams.bank-data.products[0]: expected a product such as balances"),
    (document({**DATA, "products": [".."]}), "upstreams.bank-data.products[0]: expected a product such as balances"),
    (document({**DATA, "timeout": "0s"}), "upstreams.bank-data.timeout: must be more than 0"),
    (
        document({**DATA, "products": ["payments"]}),
        "upstreams.bank-data.products: Akoya's v3 API accepts requests for payments only with intent: payments",
    ),
    (
        document(**{"upstreams.second": DATA}),
        'upstreams.second.data_api: environment "sandbox" is already used by upstreams.bank-data',
    ),
    (
        document(
            {"data_api": "other"},
            **{"environments.other": {**ENDPOINTS, "products_url": None}, "clients.demo-app.environment": "other"},
        ),
        'upstreams.bank-data.data_api: environment "other" has no products_url',
    ),
    (
        document({"data_api": "production"}, **{"environments.production": {"preset": "akoya-production"}}),
        'access[0].require: connector "mikomo" is of environment "sandbox", and upstreams.bank-data of "production"',
    ),
    (
        document(rule={**RULE, "path": "/data/{connector}"}),
        "access[0].path: the path of a rule for a data API must end in",
    ),
    (document(rule={**RULE, "require": "any"}), "access[0].require: a data API call needs exactly one connector"),
    (document(rule={**RULE, "require": "nothing"}), "access[0].require: a data API call needs exactly one"),
    (
        document(
            rule={**RULE, "require": ["mikomo", "other"]},
            connectors={"mikomo": {"client": "demo-app"}, "other": {"client": "demo-app"}},
        ),
        "access[0].require: a data API call needs exactly one connector",
    ),
    (document(rule={**RULE, "otherwise": "pass"}), "access[0].otherwise: a call without a token is not possible"),
    (document(rule={**RULE, "pass_token": True}), "access[0].pass_token: the gateway uses the token itself"),
    (
        document(connectors={"mikomo": {"client": "demo-app", "connector": ".."}}),
        'access[0].require: connector "mikomo" cannot be a segment of a path',
    ),
    (document(**{"environments.sandbox.data_rate": 0}), "environments.sandbox.data_rate: "),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_mistakes_in_a_data_api_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    result = validated(tmp_path, changes)
    assert result.config is None
    assert any(line.startswith(message) for line in error_lines(result)), error_lines(result)


def test_rules_that_pass_tokens_beside_a_data_api_are_warned_about(tmp_path: Path) -> None:
    rules = [
        RULE,
        {"path": "/static/*", "require": "nothing"},
        {"path": "/plain/*", "require": "any", "pass_token": False},
        {"path": "/*", "require": "any"},
    ]
    result = validated(tmp_path, document(access=rules))
    lines = [line for line in warning_lines(result) if "passes tokens" in line]
    assert [line.partition(":")[0] for line in lines] == ["access[3]"]


def test_data_api_without_a_rule_is_warned_about(tmp_path: Path) -> None:
    result = validated(tmp_path, document(rule={"path": "/*", "require": "any"}))
    assert any(line.startswith("upstreams.bank-data: no access rule leads") for line in warning_lines(result))
