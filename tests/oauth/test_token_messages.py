from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.config.model import Bearer, ClientAuthentication, Dialect, ErrorCategory, ErrorRule
from akoya_gateway.config.presets import DEFAULT_ERRORS
from akoya_gateway.oauth.client_authentication import basic_credentials
from akoya_gateway.oauth.outcomes import ClientRejected, OutcomeUnknown, ProviderDown, Refused, Untrusted
from akoya_gateway.oauth.token_messages import (
    MAX_BODY_BYTES,
    HttpResponse,
    TokenResponse,
    exchange_request,
    parse_retry_after,
    parse_token_response,
    refresh_request,
    token_expiry,
)
from akoya_gateway.secret import Secret
from tests.support.oauth_values import NOW, SECRET, client

GOOD = {
    "id_token": "eyJ.eyJ.sig",
    "refresh_token": "new-refresh",
    "token_type": "bearer",
    "expires_in": 900,
    "scope": "openid profile offline_access",
}


def parse(status: int, body: Any, dialect: Dialect | None = None, retry_after: str | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_token_response(dialect or Dialect(), HttpResponse(status, raw, retry_after), NOW)


# Requests


def test_code_grant_uses_basic_and_keeps_credentials_out_of_the_body() -> None:
    request = exchange_request(client(), Secret("the-code"))
    assert request.url == "https://sandbox-idp.ddp.akoya.com/token"
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "authorization_code"),
        ("code", "the-code"),
        ("redirect_uri", "https://app.example.com/akoya/callback"),
    ]
    headers = dict(request.headers)
    assert headers["Accept"] == "application/json"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    scheme, _, encoded = headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded) == b"a3f9%3Ademo:5ecr~t-of%2Fthe+client%2B%3D%25"


def test_refresh_sends_credentials_in_the_body_and_no_authorization_header() -> None:
    request = refresh_request(client(), Secret("the-refresh"))
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["the-refresh"],
        "client_id": ["a3f9:demo"],
        "client_secret": [SECRET],
    }
    assert "Authorization" not in dict(request.headers)


@pytest.mark.parametrize("method", list(ClientAuthentication))
def test_either_grant_can_use_either_method_but_never_both(method: ClientAuthentication) -> None:
    app = client(dialect=Dialect(code_auth=method, refresh_auth=method))
    for request in (exchange_request(app, Secret("c")), refresh_request(app, Secret("r"))):
        in_header = "Authorization" in dict(request.headers)
        in_body = b"client_secret" in request.body
        assert in_header is (method is ClientAuthentication.CLIENT_SECRET_BASIC)
        assert in_body is not in_header


def test_verifier_is_sent_when_there_is_one() -> None:
    assert b"code_verifier=v" in exchange_request(client(), Secret("c"), Secret("v")).body
    assert b"code_verifier" not in exchange_request(client(), Secret("c")).body


def test_rfc_6749_basic_example() -> None:
    """The credentials of RFC 6749 section 2.3.1, which its examples send as Basic in section 4.1.3."""
    assert basic_credentials("s6BhdRkqt3", Secret("gX1fBat3bV")) == "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
    assert basic_credentials("s6BhdRkqt3", Secret("7Fjfp0ZBr1KtDRbnfVdmIw")) == (
        "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3"
    )


# Success


def test_complete_token_response_is_read() -> None:
    assert parse(200, {**GOOD, "grant_id": "g-1", "new_member": {"a": [1]}}) == TokenResponse(
        Secret("eyJ.eyJ.sig"), None, Secret("new-refresh"), 900, ("openid", "profile", "offline_access"), "g-1"
    )


def test_rfc_6749_section_5_1_example() -> None:
    body = b"""{
       "access_token":"2YotnFZFEjr1zCsicMWpAA",
       "token_type":"example",
       "expires_in":3600,
       "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA",
       "example_parameter":"example_value"
     }"""
    dialect = Dialect(bearer=Bearer.ACCESS_TOKEN)
    parsed = parse(200, body, dialect)
    assert isinstance(parsed, Untrusted)  # an unusable token type, but its refresh token must not be lost
    assert parsed.refresh_token == Secret("tGzv3JOkF0XG5Qx2TlKWIA")
    usable = parse(200, body.replace(b'"example",', b'"Bearer",'), dialect)
    assert usable.access_token == Secret("2YotnFZFEjr1zCsicMWpAA")
    assert usable.expires_in == 3600


def test_token_response_without_optional_members_is_accepted() -> None:
    parsed = parse(200, {"id_token": "a.b.c"})
    assert parsed == TokenResponse(Secret("a.b.c"), None, None, None, None, None)
    assert parse(200, {"id_token": "a.b.c", "refresh_token": None, "scope": "", "access_token": ""}) == parsed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(900, 900), ("900", 900), (900.7, 900), (1, 1), (0, None), (-1, None), (True, None), ("9e9", None), ("", None),
     ("٣", None), (10**12, None), (10**400, None), (1e300, None), ([], None), ({}, None), (None, None), ("-5", None)],
)  # fmt: skip
def test_expires_in_that_is_not_a_plausible_number_is_ignored(value: Any, seconds: int | None) -> None:
    assert parse(200, {**GOOD, "expires_in": value}).expires_in == seconds


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id_token": None}, "no id_token"),
        ({"id_token": ""}, "no id_token"),
        ({"id_token": 7}, "an unreadable id_token"),
        ({"id_token": ["a"]}, "an unreadable id_token"),
        ({"id_token": "a\r\nX: y"}, "an unreadable id_token"),
        ({"id_token": "a b"}, "an unreadable id_token"),
        ({"id_token": "ü"}, "an unreadable id_token"),
        ({"id_token": "a" * 65537}, "an unreadable id_token"),
    ],
)
def test_bad_member_is_never_used_and_the_new_refresh_token_is_never_lost(change: Any, fault: str) -> None:
    with_refresh = parse(200, {**GOOD, **change})
    assert with_refresh == Untrusted(f"the token endpoint responded with 200 and {fault}", Secret("new-refresh"))
    assert with_refresh.refresh_token_rotated
    without = parse(200, {**GOOD, **change, "refresh_token": None})
    assert without == OutcomeUnknown(f"the token endpoint responded with 200 and {fault}")


@pytest.mark.parametrize(
    ("scope", "values"),
    [
        ("openid profile", ("openid", "profile")),
        (" openid  profile\t", ("openid", "profile")),
        ("openid\r\nprofile", ("openid", "profile")),
        (["openid", "profile"], ("openid", "profile")),
        (["openid profile", " x "], ("openid", "profile", "x")),
        ("", None),
        ("  ", None),
        ([], None),
        (None, None),
    ],
)
def test_scope_is_read_in_any_shape(scope: Any, values: Any) -> None:
    parsed = parse(200, {**GOOD, "scope": scope})
    assert parsed.scope == values
    assert parsed.ignored == ()


@pytest.mark.parametrize("scope", [7, {"a": 1}, ["openid", 7], 'a"b', "a\\b", "a\x00b", "ü", "x" * 2049, ["x"] * 257])
def test_scope_that_cannot_be_read_counts_as_left_out_and_is_reported(scope: Any) -> None:
    parsed = parse(200, {**GOOD, "scope": scope})
    assert (parsed.scope, parsed.ignored) == (None, ("scope",))
    assert parsed.refresh_token == Secret("new-refresh")


@pytest.mark.parametrize("change", [{"token_type": None}, {"token_type": "mac"}, {"token_type": 1}, {"token_type": "N_A"},
                                    {"access_token": "a\x00"}, {"access_token": 7}, {"access_token": ["a"]}])  # fmt: skip
def test_access_token_and_its_type_decide_nothing_where_the_id_token_is_the_bearer(change: Any) -> None:
    parsed = parse(200, {**GOOD, **change})
    assert isinstance(parsed, TokenResponse)
    assert parsed.access_token is None


@pytest.mark.parametrize("kind", ["Bearer", "BEARER", " bearer "])
def test_type_of_an_access_token_is_read_without_regard_to_case_and_blanks(kind: str) -> None:
    body = {**GOOD, "access_token": "a", "token_type": kind}
    assert isinstance(parse(200, body, Dialect(bearer=Bearer.ACCESS_TOKEN)), TokenResponse)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"refresh_token":"new-refresh","id_token":"a.b', "but the body is unusable: not JSON"),
        (b'{"refresh_token":"new-refresh","id_token":"a","id_token":"b"}', "but the body is unusable: id_token occurs twice"),
        (b'{"refresh_token":"old","id_token":"a","refresh_token":"new-refresh"}', "but the body is unusable: refresh_token occurs twice"),
        (b'{"refresh_token":"new-refresh","id_token":"a"} trailing', "but the body is unusable: more than one JSON value"),
        (b'{"refresh_token":"new-refresh","id_token":"' + b"x" * MAX_BODY_BYTES, "but the body is unusable: more than 262144 bytes"),
        (b'{"refresh_token":"new-refresh","error":"invalid_grant"}', "and no id_token, error invalid_grant"),
        (b'[{"refresh_token":"new-refresh","id_token":"a"}]', "but the body is unusable: not a JSON object"),
        (b'{"result":{"refresh_token":"new-refresh","id_token":"a"}}', "and no id_token"),
        (b'<b>Warning</b> {"refresh_token":"new-refresh","id_token":"a"}', "but the body is unusable: not JSON"),
        (b'{"x":[},"refresh_token":"new-refresh","id_token":"a"}', "but the body is unusable: not JSON"),
        (b'refresh_token=new-refresh&token_type=bearer', "and no id_token"),
    ],
)  # fmt: skip
def test_new_refresh_token_outlives_every_fault_of_its_body(body: bytes, reason: str) -> None:
    assert parse(200, body) == Untrusted(f"the token endpoint responded with 200 {reason}", Secret("new-refresh"))


@pytest.mark.parametrize("status", [302, 400, 401, 429, 500, 502, 503])
def test_new_refresh_token_outlives_a_status_that_does_not_fit(status: int) -> None:
    reason = f"the token endpoint responded with {status} and a refresh_token"
    assert parse(status, GOOD) == Untrusted(reason, Secret("new-refresh"))
    assert not isinstance(parse(status, {**GOOD, "refresh_token": None}), Untrusted)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_refresh_token_that_the_provider_quotes_from_the_request_is_no_new_one(status: int) -> None:
    sent = (Secret("sent-refresh"),)
    for body in (
        b'{"error":"invalid_grant","request":{"refresh_token":"sent-refresh"}}',
        b'["refresh_token":"sent-refresh"]',
    ):
        parsed = parse_token_response(Dialect(), HttpResponse(status, body), NOW, sent)
        assert not isinstance(parsed, Untrusted)


@pytest.mark.parametrize("text", ["is required", "sent-***", "invalid", "sent-refresh"])
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": "invalid_client", "refresh_token": "TEXT"}, ClientRejected),
        (400, {"error": "invalid_grant", "refresh_token": "TEXT"}, Refused),
        (422, {"refresh_token": "TEXT"}, ClientRejected),
        (429, {"refresh_token": "TEXT", "id_token": ""}, ProviderDown),
        (503, {"refresh_token": "TEXT", "access_token": None}, ProviderDown),
        (200, {"status": "error", "errors": {"refresh_token": "TEXT"}}, OutcomeUnknown),
        (200, [{"error": "server_error", "request": {"refresh_token": "TEXT"}}], OutcomeUnknown),
    ],
)
def test_error_that_explains_or_masks_the_refresh_token_does_not_replace_it(
    status: int, body: Any, expected: type, text: str
) -> None:
    """The token that was sent is still valid after most of these, and would be lost."""
    sent = json.dumps(body).replace("TEXT", text).encode()
    parsed = parse_token_response(Dialect(), HttpResponse(status, sent), NOW, (Secret("sent-refresh"),))
    assert type(parsed) is expected


def test_form_is_read_as_a_response() -> None:
    """Servers from before RFC 6749 respond with a form, whatever its Content-Type says."""
    tokens = parse(
        200, b"id_token=a.b.c&refresh_token=new-refresh&expires_in=900&scope=openid+profile&token_type=bearer"
    )
    assert isinstance(tokens, TokenResponse)
    assert (tokens.refresh_token, tokens.expires_in, tokens.scope) == (
        Secret("new-refresh"),
        900,
        ("openid", "profile"),
    )
    assert parse(400, b"error=invalid_grant&error_description=The+token+is+expired") == Refused("invalid_grant")
    assert parse(200, b"error=invalid_grant") == Refused("invalid_grant")
    assert parse(400, b"error=invalid_grant&error=other") == ClientRejected("status_400")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "invalid_grant", "error_description": "The refresh token is expired."}, Refused("invalid_grant")),
        ({"error": "invalid_request"}, Refused("invalid_request")),
        ({"error": "invalid_client"}, ClientRejected("invalid_client")),
        ({"error": "something_new"}, ClientRejected("something_new")),
        ({"error": "server_error"}, ProviderDown("the provider responded with 200 (server_error)")),
        ({"error": "invalid_grant", "id_token": "", "refresh_token": None}, Refused("invalid_grant")),
    ],
)
@pytest.mark.parametrize("errors", [(), DEFAULT_ERRORS])
def test_error_with_status_200_is_treated_as_an_error(body: Any, expected: Any, errors: Any) -> None:
    assert parse(200, body, Dialect(errors=errors)) == expected


@pytest.mark.parametrize("body", [{"error": ["invalid_grant"]}, {"error": "x" * 65}, {"error": ""}, {"error": None},
                                  b'{"error":"invalid_grant","error":"other"}', b'{"error":"invalid_grant"'])  # fmt: skip
def test_error_with_status_200_that_cannot_be_read_ends_nothing(body: Any) -> None:
    assert isinstance(parse(200, body), OutcomeUnknown)


@pytest.mark.parametrize(
    "description",
    [
        "The request is malformed. Failed to refresh token because of multiple concurrent requests using the same token"
        " which is not allowed.",
        "Failed to refresh token because of multiple concurrent requests using the same token. Please retry the request.",
        "Please retry the request.",
    ],
)
@pytest.mark.parametrize(
    "errors", [(), DEFAULT_ERRORS, (ErrorRule(ErrorCategory.DEAD_TOKEN, status=400, error="invalid_request"),)]
)
def test_refresh_that_lost_a_race_at_the_provider_is_sent_again(description: str, errors: Any) -> None:
    """Ory Hydra reports this as `invalid_request`, which otherwise means a dead token."""
    body = {"error": "invalid_request", "error_description": description}
    assert isinstance(parse(400, body, Dialect(errors=errors)), ProviderDown)
    assert isinstance(parse(400, {**body, "error": "invalid_grant"}, Dialect(errors=errors)), ProviderDown)
    assert parse(400, {**body, "error_description": "Refresh token is invalid."}) == Refused("invalid_request")


def test_logged_part_of_an_error_has_no_secret() -> None:
    body = {
        "error": "invalid_request",
        "error_description": f"redirect_uri\nhttps://app.example.com/akoya/callback with short ab~c and {SECRET}, code"
        " ory_ac_4f9Xx.y7 eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJlMQ \x1b[31m" + "w " * 400,
    }
    response = HttpResponse(400, json.dumps(body).encode())
    parsed = parse_token_response(Dialect(), response, NOW, (Secret("ab~c"), Secret(SECRET)))
    assert isinstance(parsed, ClientRejected) and parsed.reply is not None
    description = parsed.reply.description or ""
    assert description.startswith(
        "redirect_uri https://app.example.com/akoya/callback with short [...] and [...], code [...].y7 [...].[...].[...] [31mw"
    )
    assert len(description) <= 500 and description.isprintable()
    assert (parsed.reply.status, parsed.reply.error) == (400, "invalid_request")
    quoted = parse_token_response(Dialect(), HttpResponse(400, b'{"error":"the-code"}'), NOW, (Secret("the-code"),))
    assert quoted == ClientRejected("unreadable")


def test_empty_refresh_token_counts_as_missing() -> None:
    """RFC 6749 section 3.2: a parameter without a value counts as omitted."""
    response = parse(200, {**GOOD, "refresh_token": ""})
    assert isinstance(response, TokenResponse)
    assert response.refresh_token is None


def test_refresh_token_that_is_a_number_is_kept() -> None:
    response = parse(200, {**GOOD, "refresh_token": 12345678901234567890})
    assert isinstance(response, TokenResponse)
    assert response.refresh_token == Secret("12345678901234567890")


def test_access_token_as_the_bearer_needs_its_type() -> None:
    """RFC 6749 section 7.1: a token of unknown type must not be used. An id_token has only one type."""
    dialect = Dialect(bearer=Bearer.ACCESS_TOKEN)
    good = {**GOOD, "access_token": "an-access-token"}
    assert isinstance(parse(200, good, dialect), TokenResponse)
    del good["token_type"]
    assert parse(200, good, dialect) == Untrusted(
        "the token endpoint responded with 200 and no token_type", Secret("new-refresh")
    )


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, "7"),
        ("r-2\n", "r-2"),
        ("\ufeffr-2\0", "r-2"),
        (["r-2"], "r-2"),
        ("r\u00e9-2", "r\u00e9-2"),
        ("r -2", "r -2"),
        ("\u200br-2", "r-2"),
        ({"value": "r-2", "expires_in": 86400}, "r-2"),
        ("r-" * 60_000, "r-" * 60_000),
    ],
)
def test_sloppy_refresh_token_is_read(value: Any, read: str) -> None:
    tokens = parse(200, {**GOOD, "refresh_token": value})
    assert isinstance(tokens, TokenResponse) and tokens.refresh_token == Secret(read)


@pytest.mark.parametrize(
    "value",
    ["null", "undefined", "None", "********", "new-***", "xxxxxxxx", "[redacted]", "\u2022" * 8, "-", False, [], {}, 0],
)
def test_placeholder_counts_as_no_refresh_token(value: Any) -> None:
    """The token that was sent is still valid if the provider does not rotate it. Storing the text would lose it."""
    tokens = parse(200, {**GOOD, "refresh_token": value})
    assert isinstance(tokens, TokenResponse) and tokens.refresh_token is None


@pytest.mark.parametrize(
    ("body", "retry_after", "ends"),
    [
        ({"error": "invalid_grant"}, "30", False),
        ({"error": "invalid_grant", "error_description": "The token is expired"}, "30", True),
        ({"error": "invalid_grant"}, "soon", True),
        ({"error": "invalid_grant"}, "0", True),
        ({"error": "invalid_grant", "message": "Service unavailable"}, None, False),
        ({"error": "invalid_grant", "detail": "Please try again"}, None, False),
        ({"error": "invalid_grant", "errorDescription": "Please try again"}, None, False),
        ({"error": "invalid_grant", "error_description": ["Please try again"]}, None, False),
        ({"error": "invalid_grant", "error_description": "expired", "message": "Please try again"}, None, True),
        ({"error": "invalid_grant", "message": {"text": "x"}}, None, True),
    ],
)
def test_refusal_that_asks_to_wait_or_is_described_elsewhere_ends_nothing(
    body: Any, retry_after: str | None, ends: bool
) -> None:
    assert isinstance(parse(400, body, retry_after=retry_after), Refused if ends else ProviderDown)


RFC_INVALID_REQUEST = (
    "The request is missing a required parameter, includes an invalid parameter value, includes a parameter more than "
    "once, or is otherwise malformed."
)
RFC_INVALID_GRANT = (
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is "
    "invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to "
    "another client."
)


@pytest.mark.parametrize(
    ("error", "description", "ends"),
    [
        ("invalid_request", "Refresh token is invalid or has already been claimed by another client.", True),
        ("invalid_request", "The refresh_token parameter is expired", True),
        ("invalid_request", "Invalid or expired code parameter.", True),
        ("invalid_request", "bad token", True),
        ("invalid_request", None, True),
        ("invalid_request", "No refresh token in request", False),
        ("invalid_request", "redirect_uri did not match URI from initial request", False),
        ("invalid_request", RFC_INVALID_REQUEST + " The POST body can not be empty.", False),
        ("invalid_request", RFC_INVALID_REQUEST, False),
        ("invalid_request", "Content-Type must be application/x-www-form-urlencoded", False),
        ("invalid_request", "Missing grant type", False),
        ("invalid_request", "client_id is required", False),
        ("invalid_grant", RFC_INVALID_GRANT, True),
        ("invalid_grant", RFC_INVALID_GRANT + " The refresh token has not been found: not_found", True),
        ("invalid_grant", "Token was issued long ago and does not exist", True),
        ("invalid_grant", "The refresh token is invalid, expired, revoked or was issued to another client.", True),
        ("invalid_grant", "Refresh token is invalid or was issued to another client", True),
        ("invalid_grant", "The refresh token was revoked, or it does not belong to this client", True),
        ("invalid_grant", "The token does not belong to the client or was revoked", True),
        ("invalid_grant", None, True),
        (
            "invalid_grant",
            RFC_INVALID_GRANT
            + " The OAuth 2.0 Client ID from this request does not match the ID during the initial token issuance.",
            False,
        ),
        ("invalid_grant", "Refresh token was issued to a different client", False),
        ("invalid_grant", "Refresh token not issued to this client", False),
        ("invalid_grant", "The token does not belong to this client", False),
        ("invalid_grant", "Invalid token issuer. Expected 'https://idp.example.com/'", False),
        ("invalid_grant", "The token has expired or has an invalid issuer", True),
        ("invalid_grant", "Token not found in the database", True),
        ("invalid_grant", "No such token in the database", True),
        ("invalid_grant", "The token does not exist in the database", True),
        ("invalid_grant", "The consent record was deleted from the database", True),
        ("invalid_grant", "The consent was temporarily revoked", True),
        ("invalid_grant", "Session timed out. Please sign in and try again.", True),
        ("invalid_grant", "Please reconnect the account and try again.", True),
        ("invalid_grant", "Concurrent use: the token was rotated", True),
        ("invalid_grant", "The refresh token is invalid. Please try again.", True),
        ("invalid_request", "Bad refresh token, try again", True),
        ("invalid_grant", "Token is not active", True),
        ("invalid_grant", "Session not active", True),
        ("invalid_grant", "Maximum allowed refresh token reuse exceeded", True),
        ("invalid_grant", "Unknown or invalid refresh token.", True),
        ("invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.", True),
        ("invalid_grant", "User account has been disabled", True),
        ("invalid_grant", "The refresh token is invalid or the client is disabled", True),
        ("invalid_grant", "invalid client credentials or refresh token", True),
        ("invalid_grant", "The token has already been used; too many requests", True),
        ("invalid_grant", "The authorization granted to this client has been revoked", True),
        ("invalid_grant", "The refresh token for the client is invalid", True),
        ("invalid_grant", "The user's consent for client has been revoked", True),
        ("invalid_grant", "Refresh token idle timeout", True),
        ("invalid_grant", "The inactivity timeout was exceeded", True),
        ("invalid_grant", "Bad request by client: the client has been suspended", False),
        ("invalid_grant", "Refresh token was sent with client authentication of an unknown client", False),
        ("invalid_grant", "Client authentication failed", False),
        ("invalid_grant", "The client secret has expired", False),
        ("invalid_grant", "Unknown client", False),
        ("invalid_grant", "The client is disabled", False),
        ("invalid_grant", "redirect_uri mismatch", False),
        ("invalid_grant", "IP address not allowed", False),
        ("invalid_request", "client_id is missing or empty", False),
    ],
)
def test_error_about_the_request_or_the_client_does_not_end_a_grant(
    error: str, description: str | None, ends: bool
) -> None:
    """A proxy that removes the form, or another client_id in the configuration, would end the grants of all users."""
    body = {"error": error} if description is None else {"error": error, "error_description": description}
    for errors in ((), DEFAULT_ERRORS):
        parsed = parse(400, body, Dialect(errors=errors))
        assert parsed == (Refused(error) if ends else ClientRejected(error))


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_request"])
@pytest.mark.parametrize(
    "description",
    [
        "A temporary error occurred",
        "Unable to process the token. Try again later.",
        "Internal server error",
        "Database connection failed",
        "Please try again.",
        "Retry the request later",
        "concurrent refresh",
        "Another refresh is already in progress",
        "The refresh token is currently being used by another request",
        "optimistic lock exception",
        "Too many requests",
        "Request throttled",
        "quota exceeded",
        "upstream timeout while validating the token",
        "The bank is under maintenance",
        "SERVICE_UNAVAILABLE",
        "could not connect to backend",
        "Unknown error occurred",
        "Unable to verify the token at this time",
        "The token is not yet valid; check the client's clock",
        "The token has expired. Check your iat and exp values, and the clock",
        "Token used before issued",
        RFC_INVALID_GRANT + " Please retry the request.",
        "nbf is in the future",
    ],
)
def test_failure_of_the_provider_that_blames_the_token_does_not_end_a_grant(error: str, description: str) -> None:
    body = {"error": error, "error_description": description}
    for errors in ((), DEFAULT_ERRORS):
        assert isinstance(parse(400, body, Dialect(errors=errors)), ProviderDown)


@pytest.mark.parametrize("status", [201, 203, 204, 206, 226])
def test_error_with_an_odd_2xx_status_ends_nothing(status: int) -> None:
    assert isinstance(parse(status, {"error": "invalid_grant"}), OutcomeUnknown)
    assert isinstance(parse(status, GOOD), TokenResponse)


@pytest.mark.parametrize(
    "refresh_token",
    [-7, 0.5, ["a", "b"], "a\nb", "\ufffd", "xy" * MAX_BODY_BYTES, {"a": 1}, {"a": "b", "c": "d"}, True],
)
def test_unreadable_refresh_token_leaves_the_outcome_unknown(refresh_token: Any) -> None:
    assert isinstance(parse(200, {**GOOD, "refresh_token": refresh_token}), OutcomeUnknown)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><html><body>Maintenance</body></html>",
        b"[]",
        b"null",
        b'"text"',
        b'{"id_token":"a.b.c"',
        b'{"id_token":"a.b.c","id_token":"d.e.f"}',
        b'{"id_token":"a.b.c","x":{"y":1,"y":2}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' + b"9" * 5000 + b"}",
        b'{"id_token":"\xff"}',
        "{}".encode("utf-16"),
        b'{"id_token":"a.b.c"}' + b" " * MAX_BODY_BYTES,
        b"{}",
    ],
)
def test_unusable_success_leaves_the_outcome_unknown(body: bytes) -> None:
    assert isinstance(parse(200, body), OutcomeUnknown)


# Errors


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # docs/akoya.md section 4, sad path
        (400, {"error": "invalid_request", "error_description": "Refresh token is invalid or has already been claimed"
               " by another client."}, Refused("invalid_request")),
        (400, {"error": "invalid_request", "error_description": "Invalid or expired code parameter."},
         Refused("invalid_request")),
        (400, {"error": "invalid_grant"}, Refused("invalid_grant")),
        (401, {"error": "invalid_client", "error_description": "Invalid client credentials."},
         ClientRejected("invalid_client")),
        (401, {"error": "unauthorized_client"}, ClientRejected("unauthorized_client")),
        # never a dead token
        (401, {"error": "invalid_grant"}, ClientRejected("invalid_grant")),
        (401, b"<html>", ClientRejected("status_401")),
        (403, b"<html>blocked by the firewall</html>", ClientRejected("status_403")),
        (404, b"not here", ClientRejected("status_404")),
        (400, b"<html>", ClientRejected("status_400")),
        (400, {}, ClientRejected("status_400")),
        (400, {"error": "invalid_client"}, ClientRejected("invalid_client")),
        (400, {"error": "unsupported_grant_type"}, ClientRejected("unsupported_grant_type")),
        (400, {"error": "something_new"}, ClientRejected("something_new")),
        (400, {"error": ["invalid_grant"]}, ClientRejected("unreadable")),
        (400, {"error": "invalid_grant\n"}, ClientRejected("unreadable")),
        (400, {"error": "x" * 65}, ClientRejected("unreadable")),
        (400, b'{"error":"invalid_grant","error":"other"}', ClientRejected("status_400")),
        (400, b'{"error":"invalid_grant"}' + b" " * MAX_BODY_BYTES, ClientRejected("status_400")),
        # the provider is down
        (500, {"error": "invalid_request"}, ProviderDown("the provider responded with 500 (invalid_request)")),
        (500, {"error": "invalid_grant"}, ProviderDown("the provider responded with 500 (invalid_grant)")),
        (503, b"", ProviderDown("the provider responded with 503 (status_503)")),
        (503, b" " * (MAX_BODY_BYTES + 1), ProviderDown("the provider responded with 503 (status_503)")),
        (501, b"", ProviderDown("the provider responded with 501 (status_501)")),
        (429, b"", ProviderDown("the provider responded with 429 (status_429)", busy=True)),
        (400, {"error": "temporarily_unavailable"}, ProviderDown("the provider responded with 400 (temporarily_unavailable)")),
        (302, b"", ProviderDown("the provider responded with 302 (status_302)")),
        (307, b"", ProviderDown("the provider responded with 307 (status_307)")),
        # an intermediary responds
        (502, b"", OutcomeUnknown("the provider responded with 502 (status_502)")),
        (504, b"", OutcomeUnknown("the provider responded with 504 (status_504)")),
        (520, b"", OutcomeUnknown("the provider responded with 520 (status_520)")),
        (521, b"", ProviderDown("the provider responded with 521 (status_521)")),
        (524, b"", OutcomeUnknown("the provider responded with 524 (status_524)")),
        (600, b"", OutcomeUnknown("the provider responded with 600 (status_600)")),
        (101, b"", OutcomeUnknown("the provider responded with 101 (status_101)")),
        (204, b"", OutcomeUnknown("the token endpoint responded with 204 but the body is unusable: not JSON")),
    ],
)  # fmt: skip
def test_token_response_without_dialect_rules_has_the_standard_meaning(status: int, body: Any, expected: Any) -> None:
    assert parse(status, body) == expected


def test_rules_of_the_dialect_come_first_and_the_first_match_wins() -> None:
    dialect = Dialect(
        errors=(
            ErrorRule(ErrorCategory.PROVIDER_DOWN, status=400, error="invalid_request"),
            ErrorRule(ErrorCategory.DEAD_TOKEN, status=400),
            ErrorRule(ErrorCategory.OPERATOR_FAULT, status=502),
            ErrorRule(ErrorCategory.PROVIDER_DOWN, error="busy"),
        )
    )
    assert isinstance(parse(400, {"error": "invalid_request"}, dialect), ProviderDown)
    assert parse(400, {"error": "anything"}, dialect) == Refused("anything")
    assert parse(502, b"", dialect) == ClientRejected("status_502")
    assert isinstance(parse(418, {"error": "busy"}, dialect), ProviderDown)
    assert parse(401, {"error": "invalid_client"}, dialect) == ClientRejected("invalid_client")


def test_dead_token_rule_without_a_status_spares_a_server_that_is_ill() -> None:
    """dex answers 500 `invalid_request` when its storage fails."""
    dialect = Dialect(errors=(ErrorRule(ErrorCategory.DEAD_TOKEN, error="invalid_request"),))
    assert parse(400, {"error": "invalid_request"}, dialect) == Refused("invalid_request")
    assert isinstance(parse(500, {"error": "invalid_request"}, dialect), ProviderDown)
    assert isinstance(parse(302, {"error": "invalid_request"}, dialect), ProviderDown)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("7", 7.0), ("0", 0.0), ("999999999", 3600.0), ("-1", None), ("1.5", None), ("soon", None),
        ("", None), ("5\r\nX: y", None), ("9" * 41, None), ("٣", None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0), ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2099 08:00:00 GMT", 3600.0), ("Fri, 99 Jan 2027 08:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_parsed_and_limited(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_rules_that_all_environments_share_agree_with_the_defaults() -> None:
    dialect = Dialect(errors=DEFAULT_ERRORS)
    words = [
        "invalid_request",
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "new",
    ]
    for status in (302, 400, 401, 403, 404, 500, 502, 503, 504):
        for body in (b"", b"<html>", *({"error": word} for word in words)):
            assert parse(status, body, dialect) == parse(status, body), (status, body)
    assert parse(429, b"", dialect) == parse(429, b"")


def test_retry_after_reaches_the_response() -> None:
    assert parse(503, b"", retry_after="12") == ProviderDown("the provider responded with 503 (status_503)", 12.0)
    assert parse(429, b"", retry_after="x").retry_after is None


# Revocation


@pytest.mark.parametrize(
    ("exp", "expires_in", "end"),
    [(NOW + 900, 86400, NOW + 900), (NOW + 900, 60, NOW + 60), (NOW + 900, None, NOW + 900), (None, 60, NOW + 60),
     (None, None, NOW + 300), (NOW - 1, 60, NOW - 1)],
)  # fmt: skip
def test_token_expiry_is_the_earliest_given_time_or_the_assumed_lifetime(
    exp: float | None, expires_in: int | None, end: float
) -> None:
    assert token_expiry(NOW, exp, expires_in, 300.0) == end


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    status=st.integers(100, 699),
    body=st.one_of(
        st.binary(max_size=60),
        st.dictionaries(st.sampled_from([*GOOD, "error", "grant_id", "access_token"]), _JSON).map(
            lambda members: json.dumps(members).encode()
        ),
    ),
    retry_after=st.none() | st.text(max_size=45),
    bearer=st.sampled_from(Bearer),
)
def test_any_token_response_is_parsed_without_an_exception(
    status: int, body: bytes, retry_after: str | None, bearer: Bearer
) -> None:
    parsed = parse_token_response(Dialect(bearer=bearer), HttpResponse(status, body, retry_after), NOW)
    match parsed:
        case TokenResponse():
            assert 200 <= status < 300
            for token in (parsed.id_token, parsed.access_token):
                assert token is None or all("!" <= c <= "~" for c in token.reveal())
            assert all("!" <= c <= "~" for word in parsed.scope or () for c in word)
        case Refused(error=word) | ClientRejected(error=word):
            assert word.isascii() and word.isprintable() and len(word) <= 64
            assert 400 <= status < 500
        case ProviderDown() | OutcomeUnknown() | Untrusted():
            assert parsed.detail.isascii() and parsed.detail.isprintable()
