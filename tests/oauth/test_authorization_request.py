from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.oauth.authorization_request import (
    authorization_url,
    code_challenge,
    code_verifier,
    new_nonce,
    new_state,
)
from akoya_gateway.secret import Secret
from tests.support.oauth_values import client, connector


def test_url_is_the_one_that_akoya_documents() -> None:
    app = client()
    assert authorization_url(app, connector(app), "appstate") == (
        "https://sandbox-idp.ddp.akoya.com/auth?connector=mikomo&client_id=a3f9%3Ademo"
        "&redirect_uri=https%3A%2F%2Fapp.example.com%2Fakoya%2Fcallback&response_type=code"
        "&scope=openid%20profile%20offline_access&state=appstate"
    )


def test_connector_parameter_is_the_providers_id_not_the_configured_key() -> None:
    app = client()
    assert "connector=mikomo&" in authorization_url(app, connector(app), "s")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://app.example.com/akoya/callback",
        "https://app.example.com/a%2Fb?x=1&y=%20#",
        "https://App.example.com:443//a/../b",
        "https://app.example.com/ünïcode",
    ],
)
def test_redirect_uri_arrives_byte_for_byte(redirect_uri: str) -> None:
    app = replace(client(), redirect_uri=redirect_uri)
    query = urlsplit(authorization_url(app, connector(app), "s")).query
    assert parse_qs(query)["redirect_uri"] == [redirect_uri]


def test_pkce_and_nonce_are_sent_only_when_given() -> None:
    app = client()
    plain = dict(parse_qsl(urlsplit(authorization_url(app, connector(app), "s")).query))
    assert not plain.keys() & {"code_challenge", "code_challenge_method", "nonce"}
    full = dict(parse_qsl(urlsplit(authorization_url(app, connector(app), "s", "challenge", "n1")).query))
    assert (full["code_challenge"], full["code_challenge_method"], full["nonce"]) == ("challenge", "S256", "n1")


def test_fixed_parameters_are_added_and_never_override_the_gateways() -> None:
    fixed = (
        ("prompt", "consent"),
        ("state", "evil"),
        ("redirect_uri", "https://evil.example"),
        ("nonce", "fixed"),
        ("code_challenge_method", "plain"),
        ("request", "eyJ"),
        ("request_uri", "https://evil.example/r"),
    )
    app = client(authorization_parameters=fixed)
    query = parse_qs(urlsplit(authorization_url(app, connector(app), "mine")).query)
    assert query["prompt"] == ["consent"]
    assert query["state"] == ["mine"]
    assert query["redirect_uri"] == [app.redirect_uri]
    assert not query.keys() & {"nonce", "code_challenge_method", "request", "request_uri"}


@pytest.mark.parametrize(
    ("endpoint", "start"),
    [
        ("https://idp.example/auth?tenant=a", "https://idp.example/auth?tenant=a&connector="),
        ("https://idp.example/auth?", "https://idp.example/auth?connector="),
        ("https://idp.example/auth?tenant=a&", "https://idp.example/auth?tenant=a&connector="),
        ("https://idp.example/auth#top", "https://idp.example/auth?connector="),
    ],
)
def test_query_of_the_endpoint_is_kept_and_a_fragment_is_not(endpoint: str, start: str) -> None:
    app = client(authorization_endpoint=endpoint)
    assert authorization_url(app, connector(app), "s").startswith(start)


def test_rfc_7636_appendix_b() -> None:
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_rfc_7636_appendix_b_verifier_from_its_octets() -> None:
    octets = bytes.fromhex("7418dfb49799e0254ffa607dd8adbbba16d4254d69d6bff05b58055853848d79")
    assert code_verifier(lambda n: octets[:n]).reveal() == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


def test_state_and_nonce_hold_at_least_128_bits_and_differ() -> None:
    sizes: list[int] = []

    def random(count: int) -> bytes:
        sizes.append(count)
        return bytes(count)

    assert len(new_state(random)) == 32
    assert len(new_nonce(random)) == 32
    assert min(sizes) >= 16
    assert len({new_state() for _ in range(100)} | {new_nonce() for _ in range(100)}) == 200


@given(state=st.text(max_size=50), nonce=st.text(max_size=50))
def test_no_value_can_add_a_parameter(state: str, nonce: str) -> None:
    app = client()
    try:
        url = authorization_url(app, connector(app), state, None, nonce)
    except UnicodeEncodeError:
        return  # lone surrogates; the gateway's own values come from new_state
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert [name for name, _ in pairs] == [
        "connector", "client_id", "redirect_uri", "response_type", "scope", "state", "nonce",
    ]  # fmt: skip
    assert dict(pairs)["state"] == state
    assert url.isascii()
