"""/auth and the callback: the tables of docs/akoya.md section 3."""

from __future__ import annotations

import re

import httpx
import pytest

from akoya_gateway.sandbox import SandboxClient, SandboxServer, SandboxSettings
from tests.support.sandbox_client import HTTP, REDIRECT, STATE, authorization_url, query_of


def fetch(server: SandboxServer, **changes: str | None) -> httpx.Response:
    return HTTP.get(authorization_url(server, **changes))


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"redirect_uri": None}, 400, "Unregistered redirect_uri"),
        ({"redirect_uri": REDIRECT + "/"}, 400, "Unregistered redirect_uri"),
        ({"redirect_uri": REDIRECT.upper()}, 400, "Unregistered redirect_uri"),
        ({"redirect_uri": REDIRECT + "?a=b"}, 400, "Unregistered redirect_uri"),
        ({"redirect_uri": "https://evil.example/akoya/callback"}, 400, "Unregistered redirect_uri"),
        ({"connector": "nobank"}, 400, "Invalid ConnectorID"),
        ({"connector": "Mikomo"}, 400, "Invalid ConnectorID"),
        ({"connector": ""}, 403, "Forbidden"),
        ({"connector": None}, 200, "names no connector"),
        ({"client_id": ""}, 400, "Invalid client_id (&#34;&#34;)"),
        ({"client_id": None}, 400, "Invalid client_id (&#34;&#34;)"),
        ({"client_id": "nope"}, 400, "Invalid client_id (&#34;nope&#34;)"),
        ({"response_type": ""}, 403, "Forbidden"),
    ],
)
def test_some_errors_are_shown_only_in_the_browser(
    either: SandboxServer, changes: dict[str, str | None], status: int, text: str
) -> None:
    response = fetch(either, **changes)
    assert response.status_code == status
    assert text in response.text
    assert "location" not in response.headers


def test_error_page_escapes_the_query(dex: SandboxServer) -> None:
    response = fetch(dex, client_id="<script>alert(1)</script>")
    assert "<script>" not in response.text


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"response_type": None}, "invalid_request", "Invalid response type"),
        ({"response_type": "token"}, "unsupported_response_type", None),
        ({"scope": "profile offline_access"}, "invalid_scope", 'Missing required scope(s) ["openid"].'),
        ({"scope": None}, "invalid_scope", 'Missing required scope(s) ["openid"].'),
        ({"scope": "openid accounts_basic"}, "invalid_scope", 'Unrecognized scope(s) ["accounts_basic"]'),
        ({"code_challenge": "x" * 43}, "invalid_request", 'Unsupported PKCE challenge method ("plain").'),
        (
            {"code_challenge": "short", "code_challenge_method": "S256"},
            "invalid_request",
            "The code_challenge is not a S256 challenge.",
        ),
    ],
)
def test_other_errors_go_to_the_redirect_uri_with_the_state(
    either: SandboxServer, changes: dict[str, str | None], error: str, description: str | None
) -> None:
    response = fetch(either, **changes)
    assert response.status_code == 302
    location = response.headers["location"]
    assert location.startswith(REDIRECT + "?")
    expected = {"error": error, "state": STATE} | ({"error_description": description} if description else {})
    assert query_of(location) == expected


def test_repeated_parameter_gets_invalid_request(either: SandboxServer) -> None:
    response = HTTP.get(authorization_url(either) + "&scope=openid")
    assert query_of(response.headers["location"])["error"] == "invalid_request"


@pytest.mark.parametrize("state", [None, "", "short", "1234567"])
def test_hydra_refuses_a_state_below_eight_characters(hydra: SandboxServer, state: str | None) -> None:
    query = query_of(fetch(hydra, state=state).headers["location"])
    assert query["error"] == "invalid_state"
    assert query.get("state") == (state or None)


@pytest.mark.parametrize("state", [None, "short"])
def test_dex_takes_any_state(dex: SandboxServer, state: str | None) -> None:
    assert fetch(dex, state=state).headers["location"].startswith("/consent/")


def test_client_without_the_right_to_authorize_gets_the_error_at_its_redirect_uri() -> None:
    with SandboxServer(SandboxSettings(clients=(SandboxClient(may_authorize=False),))) as server:
        assert query_of(fetch(server).headers["location"]) == {"error": "unauthorized_client", "state": STATE}


def test_fault_at_the_authorization_endpoint_gives_a_bare_5xx(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("status", "authorization", status=501, times=1)
    assert fetch(akoya_sandbox).status_code == 501
    assert fetch(akoya_sandbox).status_code == 303


def test_server_error_can_be_sent_to_the_redirect_uri(akoya_sandbox: SandboxServer) -> None:
    akoya_sandbox.fault("callback_error", "consent", error="server_error", description="accounts not listed", times=1)
    query = query_of(akoya_sandbox.consent(authorization_url(akoya_sandbox)))
    assert query == {"error": "server_error", "error_description": "accounts not listed", "state": STATE}


def test_dex_sends_a_code_of_25_characters_and_the_state(dex: SandboxServer) -> None:
    query = query_of(dex.consent(authorization_url(dex)))
    assert set(query) == {"code", "state"}
    assert query["state"] == STATE
    assert re.fullmatch("[a-z2-7]{25}", query["code"])


def test_hydra_sends_a_long_code_and_an_extra_scope(hydra: SandboxServer) -> None:
    query = query_of(hydra.consent(authorization_url(hydra)))
    assert query["state"] == STATE
    assert query["scope"] == "openid profile offline_access"
    assert re.fullmatch(r"ory_ac_[\w-]{40,}\.[\w-]{40,}", query["code"])


def test_redirect_uri_keeps_its_own_query(akoya_sandbox: SandboxServer) -> None:
    uri = "https://app.example.com/cb?tenant=1"
    akoya_sandbox.register_redirect_uri(uri)
    location = akoya_sandbox.consent(authorization_url(akoya_sandbox, redirect_uri=uri))
    assert location.startswith(uri + "&code=")


def test_redirect_uri_is_one_of_several(akoya_sandbox: SandboxServer) -> None:
    second = REDIRECT.replace("127.0.0.1", "localhost")
    assert akoya_sandbox.consent(authorization_url(akoya_sandbox, redirect_uri=second)).startswith(second)
