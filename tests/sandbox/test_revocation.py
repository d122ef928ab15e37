"""/revoke and the loss of a consent (docs/akoya.md sections 4 and 5)."""

from __future__ import annotations

import pytest

from akoya_gateway.sandbox import SandboxServer, SandboxSettings
from tests.support.sandbox_client import call, connect, refresh, revoke


def test_after_a_revocation_data_calls_give_602_and_refreshes_fail(either: SandboxServer) -> None:
    tokens = connect(either)
    response = revoke(either, tokens["refresh_token"])
    assert (response.status_code, response.content) == (200, b"")
    refused = call(either, "/accounts-info/v2/mikomo", tokens["id_token"])
    assert refused.status_code == 401
    assert (refused.json()["code"], refused.json()["message"]) == (602, "Customer not authorized")
    assert refresh(either, tokens["refresh_token"]).status_code == 400


def test_revocation_keeps_other_grants_of_the_user(either: SandboxServer) -> None:
    first, second = connect(either), connect(either)
    revoke(either, first["refresh_token"])
    assert call(either, "/accounts-info/v2/mikomo", second["id_token"]).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": None}, 400, "invalid_request"),
        ({"token": None}, 400, "invalid_request"),
        ({"client_secret": "wrong"}, 401, "unauthorized_client"),
        ({"client_id": "wrong"}, 401, "unauthorized_client"),
        ({"token_type_hint": "access_token"}, 400, "unsupported_token_type"),
        ({"token_type_hint": None}, 400, "unsupported_token_type"),
    ],
)
def test_invalid_revocations_are_refused(
    either: SandboxServer, changes: dict[str, str | None], status: int, error: str
) -> None:
    tokens = connect(either)
    response = revoke(either, **({"token": tokens["refresh_token"]} | changes))
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert call(either, "/accounts-info/v2/mikomo", tokens["id_token"]).status_code == 200


def test_revocation_accepts_credentials_only_in_the_body(either: SandboxServer) -> None:
    tokens = connect(either)
    basic = (either.client_id, either.client_secret)
    for changes, status in (({"client_id": None, "client_secret": None}, 400), ({}, 401)):
        response = revoke(either, tokens["refresh_token"], auth=basic, **changes)
        assert response.status_code == status
    assert call(either, "/accounts-info/v2/mikomo", tokens["id_token"]).status_code == 200


def test_used_refresh_token_still_revokes_its_grant(either: SandboxServer) -> None:
    first = connect(either)
    second = refresh(either, first["refresh_token"]).json()
    assert revoke(either, first["refresh_token"]).status_code == 200
    assert refresh(either, second["refresh_token"]).status_code == 400


@pytest.mark.parametrize("status", [200, 400])
def test_second_revocation_gets_the_configured_response(status: int) -> None:
    with SandboxServer(SandboxSettings(revoke_unknown_status=status)) as server:
        token = connect(server)["refresh_token"]
        assert revoke(server, token).status_code == 200
        assert revoke(server, token).status_code == status
        assert revoke(server, "never-was").status_code == status


@pytest.mark.parametrize(("code", "status"), [(602, 401), (601, 404)])
def test_customer_can_end_the_consent_in_the_portal_of_the_bank(
    akoya_sandbox: SandboxServer, code: int, status: int
) -> None:
    tokens, other = connect(akoya_sandbox), connect(akoya_sandbox, "mikomo_4")
    assert akoya_sandbox.revoke_consent(user="mikomo_1", code=code) == [tokens["grant_id"]]
    refused = call(akoya_sandbox, "/balances/v2/mikomo", tokens["id_token"])
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refresh(akoya_sandbox, tokens["refresh_token"]).status_code == 400
    assert call(akoya_sandbox, "/balances/v2/mikomo", other["id_token"]).status_code == 200
