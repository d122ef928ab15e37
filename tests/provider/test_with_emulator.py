"""A client's whole life cycle against the emulator, in both dialects: URL, callback, exchange, refresh, revoke."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from joserfc import jws

from akoya_gateway.config.model import Client, Connector, Dialect, Environment, Seconds, Tokens
from akoya_gateway.oauth.authorization_request import authorization_url, new_state
from akoya_gateway.oauth.authorization_response import AuthorizationRefused, CodeReceived, parse_authorization_response
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    Revoked,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.provider import Provider, RemoteKeySet
from akoya_gateway.sandbox import SandboxDialect, SandboxServer, SandboxSettings
from akoya_gateway.secret import Secret


@pytest.fixture(scope="module", params=list(SandboxDialect))
def emulator(request: pytest.FixtureRequest) -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(dialect=request.param)) as server:
        yield server


@pytest.fixture(autouse=True)
def _fair(emulator: SandboxServer) -> Iterator[None]:
    yield
    emulator.clear_faults()


@pytest.fixture
def app(emulator: SandboxServer) -> Client:
    environment = Environment(
        name="emulator",
        issuer=emulator.issuer,
        authorization_endpoint=f"{emulator.url}/auth",
        token_endpoint=f"{emulator.url}/token",
        revocation_endpoint=f"{emulator.url}/revoke",
        jwks_uri=emulator.jwks_uri,
        products_url=None,
        dialect=Dialect(),
        timeout=Seconds(5.0),
    )
    return Client(
        name="demo-app",
        environment=environment,
        client_id=emulator.client_id,
        client_secret=Secret(emulator.client_secret),
        redirect_uri="http://127.0.0.1:8080/akoya/callback",
        callback_path="/akoya/callback",
        scopes=("openid", "profile", "offline_access"),
    )


@pytest.fixture
def akoya(app: Client, emulator: SandboxServer, http: httpx.AsyncClient) -> Provider:
    return Provider(app, http, RemoteKeySet(emulator.jwks_uri, http, time.time), Tokens(), time.time)


async def code(app: Client, emulator: SandboxServer, user: str = "mikomo_1") -> Secret:
    state = new_state()
    url = authorization_url(app, Connector("bank", "mikomo", "Mikomo", app), state)
    location = await asyncio.to_thread(emulator.consent, url, user)
    callback = parse_authorization_response(urlsplit(location).query.encode())
    assert isinstance(callback, CodeReceived)
    assert callback.state == state
    return callback.code


def granted(response: TokenOutcome) -> TokenSet:
    assert isinstance(response, TokensIssued), response
    return response.tokens


def refresh_token(tokens: TokenSet) -> Secret:
    assert tokens.refresh_token is not None
    return tokens.refresh_token


async def connected(app: Client, emulator: SandboxServer, akoya: Provider) -> TokenSet:
    return granted(await akoya.exchange(await code(app, emulator)))


async def test_connect_refresh_revoke(app: Client, emulator: SandboxServer, akoya: Provider) -> None:
    first = await connected(app, emulator, akoya)
    assert set(first.scope) == {"openid", "profile", "offline_access"}
    assert first.consent_id
    second = granted(await akoya.refresh(refresh_token(first), first.sub))
    assert second.sub == first.sub
    assert first.source == second.source == app.token_source
    assert second.bearer != first.bearer
    assert second.refresh_token != first.refresh_token
    assert second.expires_at > time.time()
    assert await akoya.revoke(refresh_token(second)) == Revoked()
    assert await akoya.revoke(refresh_token(second)) == Revoked()
    assert isinstance(await akoya.refresh(refresh_token(second), first.sub), Refused)


async def test_code_works_once_and_a_spent_refresh_token_is_dead(
    app: Client, emulator: SandboxServer, akoya: Provider
) -> None:
    once = await code(app, emulator)
    tokens = granted(await akoya.exchange(once))
    granted(await akoya.refresh(refresh_token(tokens), tokens.sub))
    assert isinstance(await akoya.refresh(refresh_token(tokens), tokens.sub), Refused)
    assert isinstance(await akoya.exchange(once), Refused)
    assert isinstance(await akoya.exchange(Secret("never-issued")), Refused)


async def test_wrong_secret_is_the_operators_fault(app: Client, emulator: SandboxServer, akoya: Provider) -> None:
    tokens = await connected(app, emulator, akoya)
    emulator.fault("secret_rotated")
    assert await akoya.refresh(refresh_token(tokens), tokens.sub) == ClientRejected("invalid_client")
    emulator.clear_faults()
    granted(await akoya.refresh(refresh_token(tokens), tokens.sub))


@pytest.mark.parametrize("fault", ["cut_after", "cut_during"])
async def test_cut_after_the_token_was_spent_is_unknown_and_proves_true(
    app: Client, emulator: SandboxServer, akoya: Provider, fault: str
) -> None:
    tokens = await connected(app, emulator, akoya)
    emulator.fault(fault)
    assert isinstance(await akoya.refresh(refresh_token(tokens), tokens.sub), OutcomeUnknown)
    emulator.clear_faults()
    assert isinstance(await akoya.refresh(refresh_token(tokens), tokens.sub), Refused)


@pytest.mark.parametrize(
    ("fault", "status"), [("cut_before", None), ("html", None), ("garbage", None), ("status", 504)]
)
async def test_what_looks_the_same_from_here_is_unknown_too(
    app: Client, emulator: SandboxServer, akoya: Provider, fault: str, status: int | None
) -> None:
    tokens = await connected(app, emulator, akoya)
    parameters: dict[str, Any] = {} if status is None else {"status": status}
    emulator.fault(fault, **parameters)
    assert isinstance(await akoya.refresh(refresh_token(tokens), tokens.sub), OutcomeUnknown)
    emulator.clear_faults()
    granted(await akoya.refresh(refresh_token(tokens), tokens.sub))


async def test_a_503_leaves_the_token_good(app: Client, emulator: SandboxServer, akoya: Provider) -> None:
    tokens = await connected(app, emulator, akoya)
    emulator.fault("status", status=503)
    assert isinstance(await akoya.refresh(refresh_token(tokens), tokens.sub), ProviderDown)
    emulator.clear_faults()
    granted(await akoya.refresh(refresh_token(tokens), tokens.sub))


@pytest.mark.parametrize(
    ("fault", "because"), [("wrong_sub", DistrustReason.SUBJECT), ("bad_signature", DistrustReason.ID_TOKEN)]
)
async def test_untrusted_tokens_still_bring_a_refresh_token_that_works(
    app: Client, emulator: SandboxServer, akoya: Provider, fault: str, because: DistrustReason
) -> None:
    tokens = await connected(app, emulator, akoya)
    emulator.fault(fault)
    response = await akoya.refresh(refresh_token(tokens), tokens.sub)
    assert isinstance(response, Untrusted)
    assert response.reason is because
    assert response.refresh_token is not None
    emulator.clear_faults()
    granted(await akoya.refresh(response.refresh_token, tokens.sub))


async def test_rotated_signing_keys_are_picked_up(app: Client, emulator: SandboxServer, akoya: Provider) -> None:
    tokens = await connected(app, emulator, akoya)
    await asyncio.to_thread(emulator.rotate_keys, keep_old=False)
    granted(await akoya.refresh(refresh_token(tokens), tokens.sub))


async def test_bank_that_refuses_reaches_us_as_a_refusal(app: Client, emulator: SandboxServer) -> None:
    emulator.fault("callback_error", endpoint="consent", error="bank_says_no", description="Try <b>later</b>")
    url = authorization_url(app, Connector("bank", "mikomo", "Mikomo", app), "state-of-the-test")
    location = await asyncio.to_thread(emulator.consent, url, "mikomo_1")
    callback = parse_authorization_response(urlsplit(location).query.encode())
    assert callback == AuthorizationRefused("bank_says_no", "Try <b>later</b>", "state-of-the-test")


async def test_refresh_after_a_rotation_is_accepted_without_a_fetch_where_both_keys_are_published(
    app: Client, emulator: SandboxServer, akoya: Provider
) -> None:
    """Hydra keeps the kid of the login, Dex names the current key."""
    tokens = await connected(app, emulator, akoya)
    before = jws.extract_compact(tokens.bearer.reveal().encode()).headers()["kid"]
    today = await asyncio.to_thread(emulator.rotate_keys, keep_old=True)
    for _ in range(2):
        tokens = granted(await akoya.refresh(refresh_token(tokens), tokens.sub))
        kid = jws.extract_compact(tokens.bearer.reveal().encode()).headers()["kid"]
        assert kid == (before if emulator.settings.dialect is SandboxDialect.HYDRA else today)
        products = await asyncio.to_thread(
            httpx.get,
            f"{emulator.url}/accounts-info/v2/mikomo",
            headers={"Authorization": f"Bearer {tokens.bearer.reveal()}"},
        )
        assert products.status_code == 200, "the emulator's APIs accept the token"
