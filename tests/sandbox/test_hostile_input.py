"""The emulator responds to any input: no input raises an exception other than the declared errors."""

from __future__ import annotations

import base64
import time
from random import Random
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.sandbox import Fault, SandboxServer, SandboxSettings
from akoya_gateway.sandbox.authorization_endpoint import SentError, ShownError, validate_request
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.fault_injection import ArmedFaults
from akoya_gateway.sandbox.settings import DEFAULT_CLIENT_ID
from akoya_gateway.sandbox.signing_keys import SigningKeys
from akoya_gateway.sandbox.state import AuthorizationRequest, State
from tests.support.sandbox_client import HTTP, REDIRECT, call

KEYS = SigningKeys("ES256")
SETTINGS = SandboxSettings()
CONTEXT = SandboxContext(SETTINGS, time.time, Random(1), State.of(SETTINGS), KEYS, ArmedFaults((), Random(1)))
NAMES = st.sampled_from(
    ["client_id", "redirect_uri", "connector", "response_type", "scope", "state", "nonce", "code_challenge", "x"]
)
VALUES = st.one_of(
    st.sampled_from([DEFAULT_CLIENT_ID, REDIRECT, "mikomo", "code", "openid", "S256", ""]), st.text(max_size=40)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_browser_is_never_sent_to_an_unregistered_place(pairs: list[tuple[str, str]]) -> None:
    result = validate_request(CONTEXT, urlencode(pairs))
    assert isinstance(result, AuthorizationRequest | ShownError | SentError)
    if not isinstance(result, ShownError):
        assert result.redirect_uri in CONTEXT.state.clients[DEFAULT_CLIENT_ID].redirect_uris
    if isinstance(result, SentError):
        assert result.location().startswith(f"{result.redirect_uri}?error=")
        assert result.location().isprintable()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_query_gets_a_request_or_an_error(query: str) -> None:
    assert isinstance(validate_request(CONTEXT, query), ShownError)


def test_query_of_a_thousand_parameters_is_shown_an_error() -> None:
    assert validate_request(CONTEXT, "a=1&" * 1000) == ShownError(400, "Bad request")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_fault_option_is_parsed_or_raises_value_error(text: str) -> None:
    try:
        assert isinstance(Fault.parse_option(text), Fault)
    except ValueError as error:
        assert str(error)


def segment(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from([segment(t) for t in ("[]", "null", "1", "{}", '{"alg":"none"}', '{"alg":["ES256"]}')]),
            st.sampled_from([segment(f'{{"alg":"ES256","kid":"{KEYS.kid}"}}'), segment('{"alg":"HS256"}')]),
        ),
        max_size=5,
    )
)
def test_invented_token_is_refused_as_a_bearer(parts: list[str]) -> None:
    assert KEYS.verify(".".join(parts)) is None


@pytest.mark.parametrize("header", [b"Basic \xff\xfe", b"Basic ====", b"B\xc3\xa4sic x"])
def test_non_ascii_authorization_header_gets_invalid_client(dex: SandboxServer, header: bytes) -> None:
    response = HTTP.post(
        f"{dex.url}/token", data={"grant_type": "authorization_code"}, headers=[(b"Authorization", header)]
    )
    assert response.status_code == 401


@pytest.mark.parametrize("token", [segment("[]") + ".e30.x", segment('{"alg":"none"}') + ".e30.", "a.b.c.d.e"])
def test_malformed_bearer_gets_602(dex: SandboxServer, token: str) -> None:
    assert call(dex, "/balances/v2/mikomo", token).json()["code"] == 602
