"""/token: the happy-path and sad-path tables of docs/akoya.md section 4."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

import httpx
import pytest

from akoya_gateway.sandbox import SandboxClient, SandboxDialect, SandboxServer, SandboxSettings
from akoya_gateway.sandbox.settings import ClientMethod
from akoya_gateway.secret import Secret
from tests.support.sandbox_client import HTTP, REDIRECT, call, code_for, connect, redeem, refresh

BAD_CODE = {"error": "invalid_request", "error_description": "Invalid or expired code parameter."}
DEAD_TOKEN = {
    "error": "invalid_request",
    "error_description": "Refresh token is invalid or has already been claimed by another client.",
}
BAD_CLIENT = {"error": "invalid_client", "error_description": "Invalid client credentials."}
OTHER = SandboxClient(client_id="other-app", client_secret=Secret("other~secret~of~some~length"))


def refused(response: httpx.Response, status: int, body: dict[str, str]) -> bool:
    assert response.headers["cache-control"] == "no-store"
    return (response.status_code, response.json()) == (status, body)


def hydra_refused(response: httpx.Response, status: int, error: str) -> bool:
    return (response.status_code, response.json()["error"]) == (
        status,
        error,
    ) and "error_description" in response.json()


# Happy path


def test_code_gives_the_documented_members(either: SandboxServer) -> None:
    response = redeem(either, code_for(either))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert set(body) == {"id_token", "token_type", "expires_in", "refresh_token", "scope", "grant_id"}
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 86_400
    assert body["scope"] == "openid profile offline_access"


def test_refresh_returns_a_new_pair(either: SandboxServer) -> None:
    first = connect(either)
    second = refresh(either, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["id_token"] != first["id_token"] or second["grant_id"] == first["grant_id"]
    assert refresh(either, second["refresh_token"]).status_code == 200


def test_refresh_with_an_expired_id_token_returns_a_new_pair(akoya_sandbox: SandboxServer) -> None:
    first = connect(akoya_sandbox)
    akoya_sandbox.advance(86_401)
    assert call(akoya_sandbox, "/accounts-info/v2/mikomo", first["id_token"]).json()["code"] == 602
    second = refresh(akoya_sandbox, first["refresh_token"]).json()
    assert call(akoya_sandbox, "/accounts-info/v2/mikomo", second["id_token"]).status_code == 200


def test_without_offline_access_there_is_no_refresh_token(either: SandboxServer) -> None:
    assert "refresh_token" not in connect(either, scope="openid profile")


# Sad path with the documented texts


@pytest.mark.parametrize("token", ["wrong", "used", "expired"])
def test_used_wrong_or_expired_refresh_token_is_refused(token: str) -> None:
    with SandboxServer(SandboxSettings(refresh_token_lifetime=1000)) as server:
        presented = connect(server)["refresh_token"]
        if token == "used":
            assert refresh(server, presented).status_code == 200
        elif token == "expired":
            server.advance(1001)
        else:
            presented = "wrong"
        assert refused(refresh(server, presented), 400, DEAD_TOKEN)


@pytest.mark.parametrize("token", [None, ""])
def test_missing_refresh_token_is_refused(dex: SandboxServer, token: str | None) -> None:
    body = {"error": "invalid_request", "error_description": "No refresh token in request"}
    assert refused(refresh(dex, token), 400, body)


@pytest.mark.parametrize(
    "changes",
    [{"client_secret": "wrong"}, {"client_secret": None}, {"client_id": "wrong"}, {"client_id": None}],
)
def test_refresh_with_a_bad_client_leaves_the_token_valid(dex: SandboxServer, changes: dict[str, Any]) -> None:
    token = connect(dex)["refresh_token"]
    assert refused(refresh(dex, token, **changes), 401, BAD_CLIENT)
    assert refresh(dex, token).status_code == 200


@pytest.mark.parametrize("auth", [("f2c1e6a0-5f0e-4d7a-9a52-0c6f5a3d7b11", "wrong"), ("wrong", "wrong"), None])
def test_code_grant_with_a_bad_client_leaves_the_code_valid(dex: SandboxServer, auth: tuple[str, str] | None) -> None:
    code = code_for(dex)
    assert refused(redeem(dex, code, auth=auth), 401, BAD_CLIENT)
    assert redeem(dex, code).status_code == 200


def test_used_code_is_refused(dex: SandboxServer) -> None:
    code = code_for(dex)
    tokens = redeem(dex, code).json()
    assert refused(redeem(dex, code), 400, BAD_CODE)
    assert refresh(dex, tokens["refresh_token"]).status_code == 200


def test_code_expires_after_five_minutes(akoya_sandbox: SandboxServer) -> None:
    code, late = code_for(akoya_sandbox), code_for(akoya_sandbox)
    akoya_sandbox.advance(299)
    assert redeem(akoya_sandbox, code).status_code == 200
    akoya_sandbox.advance(2)
    assert refused(redeem(akoya_sandbox, late), 400, BAD_CODE)


@pytest.mark.parametrize("code", ["wrong", "", None])
def test_wrong_or_missing_code_is_refused(dex: SandboxServer, code: str | None) -> None:
    assert refused(redeem(dex, code), 400, BAD_CODE)


@pytest.mark.parametrize("uri", [REDIRECT + "/", "https://evil.example/", None])
def test_redirect_uri_other_than_the_one_of_the_authorization_is_refused(dex: SandboxServer, uri: str | None) -> None:
    code = code_for(dex)
    body = {"error": "invalid_request", "error_description": "redirect_uri did not match URI from initial request"}
    assert refused(redeem(dex, code, redirect_uri=uri), 400, body)
    assert redeem(dex, code).status_code == 200


@pytest.mark.parametrize("grant_type", [None, "", "password", "client_credentials"])
def test_missing_or_wrong_grant_type_is_refused(dex: SandboxServer, grant_type: str | None) -> None:
    assert refused(redeem(dex, code_for(dex), grant_type=grant_type), 400, {"error": "invalid_grant"})


def test_code_or_token_of_another_client_is_refused() -> None:
    with SandboxServer(SandboxSettings(clients=(SandboxClient(), OTHER))) as server:
        other = {"client_id": OTHER.client_id, "client_secret": OTHER.client_secret.reveal()}
        basic = (OTHER.client_id, OTHER.client_secret.reveal())
        assert refused(redeem(server, code_for(server), auth=basic), 400, BAD_CODE)
        assert refused(refresh(server, connect(server)["refresh_token"], **other), 400, DEAD_TOKEN)


# Client authentication


def test_code_grant_refuses_credentials_in_the_body(either: SandboxServer) -> None:
    body = {"client_id": either.client_id, "client_secret": either.client_secret}
    response = redeem(either, code_for(either), auth=None, **body)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_refresh_grant_refuses_http_basic(either: SandboxServer) -> None:
    token = connect(either)["refresh_token"]
    basic = (either.client_id, either.client_secret)
    response = refresh(either, token, auth=basic, client_id=None, client_secret=None)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == "Basic"
    assert refresh(either, token).status_code == 200


def test_two_client_authentication_methods_at_once_are_refused(either: SandboxServer) -> None:
    response = refresh(either, connect(either)["refresh_token"], auth=(either.client_id, either.client_secret))
    assert response.status_code == 401


def test_accepted_client_authentication_methods_are_configurable() -> None:
    both = frozenset(ClientMethod)
    with SandboxServer(SandboxSettings(code_auth=both, refresh_auth=both)) as server:
        body = {"client_id": server.client_id, "client_secret": server.client_secret}
        tokens = redeem(server, code_for(server), auth=None, **body).json()
        basic = (server.client_id, server.client_secret)
        assert refresh(server, tokens["refresh_token"], auth=basic, client_id=None, client_secret=None).is_success


def test_secret_with_reserved_characters_is_form_encoded_in_basic() -> None:
    client = SandboxClient(client_id="an app", client_secret=Secret("50%:+/ ~tricky~secret~here"))
    with SandboxServer(SandboxSettings(clients=(client,))) as server:
        auth = ("an+app", "50%25%3A%2B%2F+~tricky~secret~here")
        assert redeem(server, code_for(server), auth=auth).status_code == 200


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Bearer abc", "Basic " + base64.b64encode(b"\xff:x").decode()]
)
def test_malformed_authorization_header_gets_invalid_client(either: SandboxServer, header: str) -> None:
    form = {"grant_type": "authorization_code", "code": "x"}
    response = HTTP.post(f"{either.url}/token", data=form, headers={"Authorization": header})
    assert response.status_code == 401


def test_repeated_parameter_gets_invalid_request(either: SandboxServer) -> None:
    response = HTTP.post(
        f"{either.url}/token",
        auth=(either.client_id, either.client_secret),
        content=f"grant_type=authorization_code&code={code_for(either)}&code=x&redirect_uri={REDIRECT}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"grant_type=" + b"a" * 70_000, b"{}"])
def test_body_other_than_a_form_is_refused(either: SandboxServer, content: bytes) -> None:
    response = HTTP.post(
        f"{either.url}/token",
        auth=(either.client_id, either.client_secret),
        content=content,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 400


def test_get_is_not_allowed(either: SandboxServer) -> None:
    assert HTTP.get(f"{either.url}/token").status_code == 405


# The Hydra dialect


def test_hydra_reuse_revokes_the_whole_family() -> None:
    with SandboxServer(SandboxSettings(dialect=SandboxDialect.HYDRA)) as server:
        first = connect(server)
        second = refresh(server, first["refresh_token"]).json()
        assert hydra_refused(refresh(server, first["refresh_token"]), 400, "invalid_grant")
        assert hydra_refused(refresh(server, second["refresh_token"]), 400, "invalid_grant")
        assert [grant["ended"] for grant in server.grants()] == ["reused"]
        assert server.events("token")[-2]["reason"] == "spent"


def test_hydra_code_reuse_revokes_the_tokens_of_the_code(hydra: SandboxServer) -> None:
    code = code_for(hydra)
    tokens = redeem(hydra, code).json()
    assert hydra_refused(redeem(hydra, code), 400, "invalid_grant")
    assert hydra_refused(refresh(hydra, tokens["refresh_token"]), 400, "invalid_grant")


def test_hydra_returns_its_own_errors(hydra: SandboxServer) -> None:
    token = connect(hydra)["refresh_token"]
    assert hydra_refused(redeem(hydra, "wrong"), 400, "invalid_grant")
    assert hydra_refused(redeem(hydra, code_for(hydra), redirect_uri="https://evil.example/"), 400, "invalid_grant")
    assert hydra_refused(refresh(hydra, "wrong"), 400, "invalid_grant")
    assert hydra_refused(refresh(hydra, None), 400, "invalid_request")
    assert hydra_refused(refresh(hydra, token, client_secret="wrong"), 401, "invalid_client")
    assert hydra_refused(redeem(hydra, code_for(hydra), grant_type=None), 400, "invalid_request")
    assert hydra_refused(redeem(hydra, code_for(hydra), grant_type="password"), 400, "unsupported_grant_type")


@pytest.mark.parametrize("dialect", list(SandboxDialect))
def test_grace_period_accepts_a_used_token_until_it_ends(dialect: SandboxDialect) -> None:
    with SandboxServer(SandboxSettings(dialect=dialect, rotation_grace=30)) as server:
        token = connect(server)["refresh_token"]
        assert refresh(server, token).status_code == 200
        assert refresh(server, token).status_code == 200
        server.advance(31)
        assert refresh(server, token).status_code == 400


def test_rolling_refresh_token_is_extended_by_each_use() -> None:
    with SandboxServer(SandboxSettings(refresh_token_lifetime=100, refresh_token_rolling=True)) as server:
        token = connect(server)["refresh_token"]
        for _ in range(3):
            server.advance(60)
            token = refresh(server, token).json()["refresh_token"]
        server.advance(101)
        assert refused(refresh(server, token), 400, DEAD_TOKEN)


# PKCE, if it is used


def challenge(verifier: str) -> dict[str, str]:
    digest = hashlib.sha256(verifier.encode()).digest()
    return {
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }


def test_pkce_challenge_is_enforced_when_one_was_sent(either: SandboxServer) -> None:
    verifier = "v" * 43
    code = code_for(either, **challenge(verifier))
    assert redeem(either, code).json()["error"] == "invalid_grant"
    assert redeem(either, code, code_verifier="w" * 43).json()["error"] == "invalid_grant"
    assert redeem(either, code, code_verifier=verifier).status_code == 200


def test_verifier_without_a_challenge_is_refused(dex: SandboxServer) -> None:
    response = redeem(dex, code_for(dex), code_verifier="v" * 43)
    assert response.json()["error_description"] == "No PKCE flow started. Cannot check code_verifier."


# Options of the response


def test_members_of_the_response_are_configurable() -> None:
    settings = SandboxSettings(expires_in=False, access_token=True, grant_id_in_answer=False)
    with SandboxServer(settings) as server:
        assert set(connect(server)) == {"id_token", "token_type", "refresh_token", "scope", "access_token"}
    with SandboxServer(replace(settings, expires_in=True, announced_lifetime=900)) as server:
        assert connect(server)["expires_in"] == 900
