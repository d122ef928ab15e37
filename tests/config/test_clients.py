"""Environments, clients, connectors: references, presets, and the safeguards between sandbox and production."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import Bearer, ClientAuthentication, ErrorCategory, ErrorRule
from tests.support.config_documents import ENVIRON, REMOVED, SMALL, error_lines, validated, warning_lines

PRODUCTION = {"environments": {"live": {"preset": "akoya-production"}}, "clients.demo-app.environment": "live"}
BANK = {"connectors": {"first-bank": {"client": "demo-app"}}}
DOUBLE = {
    "authorization_endpoint": "http://127.0.0.1:9100/auth",
    "token_endpoint": "http://127.0.0.1:9100/token",
}


def test_sandbox_preset_is_what_akoya_documents(tmp_path: Path) -> None:
    config = validated(tmp_path, {}).config
    assert config is not None
    environment = config.environments["sandbox"]
    assert environment.issuer == "https://sandbox-idp.ddp.akoya.com/"
    assert environment.authorization_endpoint == "https://sandbox-idp.ddp.akoya.com/auth"
    assert environment.token_endpoint == "https://sandbox-idp.ddp.akoya.com/token"
    assert environment.revocation_endpoint == "https://sandbox-idp.ddp.akoya.com/revoke"
    assert environment.products_url == "https://sandbox-products.ddp.akoya.com"
    assert environment.jwks_uri is None
    assert not environment.production
    dialect = environment.dialect
    assert dialect.code_auth is ClientAuthentication.CLIENT_SECRET_BASIC
    assert dialect.refresh_auth is ClientAuthentication.CLIENT_SECRET_POST
    assert dialect.revoke_auth is ClientAuthentication.CLIENT_SECRET_POST
    assert dialect.bearer is Bearer.ID_TOKEN
    assert not dialect.pkce
    assert not dialect.nonce


def test_production_preset_has_production_hosts_only(tmp_path: Path) -> None:
    config = validated(tmp_path, {**PRODUCTION, **BANK}).config
    assert config is not None
    environment = config.environments["live"]
    assert environment.production
    assert environment.issuer == "https://idp.ddp.akoya.com/"
    assert "sandbox" not in repr(environment).replace("sandbox'", "")


def test_every_part_of_a_preset_can_be_overridden(tmp_path: Path) -> None:
    own = {
        "preset": "akoya-sandbox",
        "issuer": "https://tenant.example.com/idp",
        "token_endpoint": "https://tenant.example.com/token",
        "jwks_uri": "https://tenant.example.com/keys",
        "dialect": {
            "refresh_auth": "client_secret_basic",
            "pkce": True,
            "errors": [{"status": 418, "error": "gone", "means": "dead_token"}],
        },
        "authorization_parameters": {"prompt": "consent", "max": "1"},
        "timeout": "2s",
        "rate": 0.5,
    }
    config = validated(tmp_path, {"environments.sandbox": own}).config
    assert config is not None
    environment = config.clients["demo-app"].environment
    assert environment.issuer == "https://tenant.example.com/idp"
    assert environment.token_endpoint == "https://tenant.example.com/token"
    assert environment.authorization_endpoint == "https://sandbox-idp.ddp.akoya.com/auth"
    assert environment.dialect.refresh_auth is ClientAuthentication.CLIENT_SECRET_BASIC
    assert environment.dialect.pkce
    assert environment.dialect.errors[0] == ErrorRule(ErrorCategory.DEAD_TOKEN, 418, "gone")
    assert ErrorRule(ErrorCategory.DEAD_TOKEN, 400, "invalid_grant") in environment.dialect.errors
    assert environment.authorization_parameters == (("prompt", "consent"), ("max", "1"))
    assert environment.timeout == 2.0
    assert environment.rate == 0.5


@pytest.mark.parametrize(
    ("status", "error", "means"),
    [
        (400, "invalid_request", ErrorCategory.DEAD_TOKEN),
        (400, "invalid_grant", ErrorCategory.DEAD_TOKEN),
        (401, "invalid_client", ErrorCategory.OPERATOR_FAULT),
        (401, "unauthorized_client", ErrorCategory.OPERATOR_FAULT),
        (401, "anything", ErrorCategory.OPERATOR_FAULT),
        (400, "invalid_client", ErrorCategory.OPERATOR_FAULT),
        (429, None, ErrorCategory.PROVIDER_DOWN),
        (503, None, ErrorCategory.PROVIDER_DOWN),
        (500, "invalid_request", None),
        (502, None, None),
        (400, "unsupported_grant_type", None),
    ],
)
def test_both_error_dialects_of_akoya_are_understood(
    tmp_path: Path, status: int, error: str | None, means: ErrorCategory | None
) -> None:
    config = validated(tmp_path, {"environments.sandbox": DOUBLE}).config
    assert config is not None
    rules = config.environments["sandbox"].dialect.errors
    first = next((r for r in rules if r.status in (None, status) and r.error in (None, error)), None)
    assert (first.category if first else None) is means


def test_preset_without_keys_gets_a_warning_and_one_with_keys_none(tmp_path: Path) -> None:
    assert any("signatures of id_tokens are not checked" in line for line in warning_lines(validated(tmp_path, {})))
    with_keys = validated(tmp_path, {"environments.sandbox.jwks_uri": "https://tenant.example.com/keys"})
    assert with_keys.config is not None
    assert not any("signatures" in line for line in warning_lines(with_keys))
    assert with_keys.config.warnings == tuple(map(str, with_keys.warnings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"connectors.mikomo.client": "demo-ap"},
            'connectors.mikomo.client: no client named "demo-ap" (did you mean "demo-app"?)',
        ),
        ({"connectors.mikomo.client": "zzz"}, 'connectors.mikomo.client: no client named "zzz" (known: "demo-app")'),
        (
            {"clients.demo-app.environment": "sandbx"},
            'clients.demo-app.environment: no environment named "sandbx" (did you',
        ),
        (
            {"environments.sandbox": {}},
            "environments.sandbox: neither a preset nor authorization_endpoint and token_endpoint",
        ),
        (
            {"environments.sandbox": {"token_endpoint": "https://x.example.com/t"}},
            "environments.sandbox: neither a preset nor authorization_endpoint",
        ),
        (
            {"environments.sandbox.token_endpoint": "http://idp.example.com/t"},
            "environments.sandbox.token_endpoint: plain http",
        ),
        ({"environments.sandbox.jwks_uri": "http://10.0.0.1/keys"}, "environments.sandbox.jwks_uri: plain http"),
        (
            {"environments.sandbox.jwks_uri": "http://127.0.0.1.example.com/k"},
            "environments.sandbox.jwks_uri: plain http",
        ),
        ({"environments.sandbox.jwks_uri": "https://ex%61mple.com/"}, "environments.sandbox.jwks_uri: the host"),
        (
            {"environments.sandbox.jwks_uri": "https://x.example.com:99999/"},
            "environments.sandbox.jwks_uri: the host or port",
        ),
        ({"environments.sandbox.timeout": "0s"}, "environments.sandbox.timeout: must be more than 0"),
        (
            {"environments.sandbox.authorization_parameters": {"state": "x"}},
            "environments.sandbox.authorization_parameters.state: state is set by the gateway itself",
        ),
        (
            {"environments.sandbox.authorization_parameters": {"request_uri": "x"}},
            "environments.sandbox.authorization_parameters.request_uri: request_uri is set",
        ),
        (
            {"environments.sandbox.dialect": {"errors": [{"status": None, "means": "dead_token"}]}},
            "environments.sandbox.dialect.errors[0]: a rule without status and error would match every response",
        ),
        ({"clients.demo-app.scopes": ["profile", "offline_access"]}, 'clients.demo-app.scopes: "openid" is missing'),
        ({"connectors.any": {"client": "demo-app"}}, 'connectors.any: "any" has a meaning of its own'),
        (
            {"tokens.verify": "always"},
            "environments.sandbox: tokens.verify is always, and this environment has no jwks_uri",
        ),
        # Redirect URIs.
        (
            {"clients.demo-app.redirect_uri": "https://other.example.com/cb"},
            "clients.demo-app.redirect_uri: it is not on the",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com:8443/cb"},
            "clients.demo-app.redirect_uri: it is not on the",
        ),
        ({"clients.demo-app.redirect_uri": "http://app.example.com/cb"}, "clients.demo-app.redirect_uri: plain http"),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/cb?x=1"},
            "clients.demo-app.redirect_uri: a redirect URI has",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/"},
            "clients.demo-app.redirect_uri: a redirect URI needs a",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/a//b"},
            "clients.demo-app.redirect_uri: its path has empty",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/a/../b"},
            "clients.demo-app.redirect_uri: its path has",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/%61"},
            "clients.demo-app.redirect_uri: its path has empty or",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/akoya/"},
            "clients.demo-app.redirect_uri: its path is a route",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/akoya/connect/x"},
            "clients.demo-app.redirect_uri: its path is a route",
        ),
        (
            {"clients.demo-app.redirect_uri": "https://app.example.com/banks/logout", "prefix": "/banks"},
            "clients.demo-app.redirect_uri: its path is a route",
        ),
        # Safeguards between sandbox and production.
        (PRODUCTION, 'connectors.mikomo: mikomo exists in the sandbox only, and client "demo-app" is production'),
        (
            {**PRODUCTION, "connectors": {"bank": {"client": "demo-app", "connector": "Mikomo"}}},
            "connectors.bank.connector: mikomo exists in the sandbox only",
        ),
        (
            {"environments.sandbox.token_endpoint": "https://idp.ddp.akoya.com/token"},
            "environments.sandbox.token_endpoint: Akoya's production host idp.ddp.akoya.com in a sandbox environment",
        ),
        (
            {**PRODUCTION, **BANK, "environments.live.token_endpoint": "https://sandbox-idp.ddp.akoya.com/token"},
            "environments.live.token_endpoint: Akoya's sandbox host sandbox-idp.ddp.akoya.com in a production environment",
        ),
        (
            {"environments.sandbox": {"preset": "akoya-sandbox", "production": True}, **BANK},
            "environments.sandbox.production: not a production environment",
        ),
        (
            {
                "environments.sandbox": {
                    "authorization_endpoint": "https://idp.ddp.akoya.com/auth",
                    "token_endpoint": "https://sandbox-idp.ddp.akoya.com/token",
                }
            },
            "environments.sandbox.authorization_endpoint: Akoya's production host",
        ),
        (
            {
                **PRODUCTION,
                **BANK,
                "public_url": "http://localhost:8080",
                "clients.demo-app.redirect_uri": "http://localhost:8080/cb",
            },
            "clients.demo-app.redirect_uri: Akoya takes loopback redirect URIs in the sandbox only",
        ),
    ],
)
def test_one_mistake_is_one_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, changes))
    assert len(lines) == 1, lines
    assert lines[0].startswith(message), lines[0]


def test_unnamed_production_is_known_by_its_hosts(tmp_path: Path) -> None:
    own = {
        "authorization_endpoint": "https://idp.ddp.akoya.com/auth",
        "token_endpoint": "https://idp.ddp.akoya.com/token",
    }
    lines = error_lines(validated(tmp_path, {"environments.sandbox": own}))
    assert [line.split(":")[0] for line in lines] == ["connectors.mikomo"]


def test_one_client_id_in_sandbox_and_production_is_refused(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "environments.live": {"preset": "akoya-production"},
        "clients.live-app": {
            "environment": "live",
            "client_id": {"env": "ID"},
            "client_secret": {"env": "CLIENT_SECRET"},
            "redirect_uri": "https://app.example.com/live/callback",
        },
    }
    same = error_lines(validated(tmp_path, changes, {**ENVIRON, "ID": "demo"}))
    assert same == [
        'clients.live-app.client_id: the same client_id as client "demo-app", one in production and one not '
        "(Akoya gives each app its own client_id per environment)"
    ]
    assert error_lines(validated(tmp_path, changes, {**ENVIRON, "ID": "other"})) == []


def test_missing_secrets_do_not_hide_the_rails(tmp_path: Path) -> None:
    lines = error_lines(validated(tmp_path, PRODUCTION, {}))
    assert any(line.startswith("connectors.mikomo: mikomo exists in the sandbox only") for line in lines)


def test_names_and_ids_of_connectors_may_differ(tmp_path: Path) -> None:
    config = validated(
        tmp_path, {"connectors.bank": {"client": "demo-app", "connector": "Some~Bank", "name": "Süd Bank"}}
    ).config
    assert config is not None
    assert (config.connectors["bank"].id, config.connectors["bank"].name) == ("Some~Bank", "Süd Bank")
    assert (config.connectors["mikomo"].id, config.connectors["mikomo"].name) == ("mikomo", "mikomo")


def test_without_offline_access_there_is_a_warning(tmp_path: Path) -> None:
    result = validated(tmp_path, {"clients.demo-app.scopes": ["openid"]})
    assert result.config is not None
    assert any("no refresh token" in line for line in warning_lines(result))


def test_endpoint_that_cannot_revoke_is_warned_of(tmp_path: Path) -> None:
    lines = warning_lines(validated(tmp_path, {"environments.sandbox": DOUBLE}))
    assert any("cannot revoke" in line for line in lines)
    assert any("issuer of id_tokens is not checked" in line for line in lines)


def test_client_without_connector_is_warned_of(tmp_path: Path) -> None:
    other = {**SMALL["clients"]["demo-app"], "redirect_uri": "https://app.example.com/other/callback"}
    lines = warning_lines(validated(tmp_path, {"clients.other": other}))
    assert "clients.other: no connector uses this client" in lines
    assert not any(line.startswith("clients.demo-app") for line in lines)


def test_environment_is_needed(tmp_path: Path) -> None:
    lines = error_lines(validated(tmp_path, {"clients.demo-app.environment": REMOVED}))
    assert lines == ['clients.demo-app: "environment" is missing (such as `environment: sandbox`)']
