from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from akoya_gateway.config.model import Dialect, ErrorCategory, ErrorRule
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown, Revoked
from akoya_gateway.oauth.revocation import parse_revocation_response, revocation_request
from akoya_gateway.oauth.token_messages import HttpResponse
from akoya_gateway.secret import Secret
from tests.support.oauth_values import NOW, SECRET, client


def test_request_is_the_one_that_akoya_documents() -> None:
    request = revocation_request(client(), Secret("the-refresh"))
    assert request is not None
    assert request.url == "https://sandbox-idp.ddp.akoya.com/revoke"
    assert parse_qsl(request.body.decode()) == [
        ("token", "the-refresh"),
        ("token_type_hint", "refresh_token"),
        ("client_id", "a3f9:demo"),
        ("client_secret", SECRET),
    ]
    assert "Authorization" not in dict(request.headers)


def test_environment_without_the_endpoint_cannot_revoke() -> None:
    assert revocation_request(client(revocation_endpoint=None), Secret("r")) is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", Revoked()),
        (200, b"<html>", Revoked()),
        (204, b"", Revoked()),
        (200, {"ok": True}, Revoked()),
        (200, {"error": ""}, Revoked()),
        (200, {"error": "invalid_token"}, Revoked()),
        (200, {"error": "invalid_client"}, ClientRejected("invalid_client")),
        (200, {"error": "server_error"}, ProviderDown("the provider responded with 200 (server_error)", 9.0)),
        (400, {"error": "invalid_grant"}, Revoked()),
        (400, {"error": "invalid_token"}, Revoked()),
        (400, {"error": "invalid_request"}, ClientRejected("invalid_request")),
        (400, {"error": "unsupported_token_type"}, ClientRejected("unsupported_token_type")),
        (401, {"error": "unauthorized_client"}, ClientRejected("unauthorized_client")),
        (404, b"", ClientRejected("status_404")),
        (503, b"", ProviderDown("the provider responded with 503 (status_503)", 9.0)),
        (500, {"error": "invalid_token"}, ProviderDown("the provider responded with 500 (invalid_token)", 9.0)),
        (429, b"", ProviderDown("the provider responded with 429 (status_429)", 9.0, busy=True)),
        (504, b"", OutcomeUnknown("the provider responded with 504 (status_504)")),
        (302, b"", ProviderDown("the provider responded with 302 (status_302)", 9.0)),
    ],
)
def test_revocation_response_has_the_documented_meaning(status: int, body: Any, expected: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert (
        parse_revocation_response(
            client(), HttpResponse(status, raw, "9" if isinstance(expected, ProviderDown) else None), NOW
        )
        == expected
    )


def test_dead_token_rule_of_the_token_endpoint_does_not_apply_to_revocation() -> None:
    dialect = Dialect(errors=(ErrorRule(ErrorCategory.DEAD_TOKEN, status=400),))
    response = HttpResponse(400, b'{"error":"invalid_request"}')
    assert parse_revocation_response(client(dialect=dialect), response, NOW) == ClientRejected("invalid_request")
