"""`identity: {jwt: ...}`: the user named by a JWT, at every entry point."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.user_identity import CACHE_SECONDS, JWTAuthenticator, NotCached
from akoya_gateway.config.model import Identity, IdentitySource
from akoya_gateway.errors import UserError
from akoya_gateway.provider.factory import http_client
from akoya_gateway.provider.remote_keys import RemoteKeySet
from tests.authentication.issuer import AUDIENCE, ISSUER, Issuer
from tests.support.environment import GatewayEnv
from tests.support.forward_auth import get
from tests.support.waiting import until

BAD = list(Issuer().bad_tokens())


def test_grants_are_found_by_the_token_of_their_user_only(by_token: GatewayEnv, issuer: Issuer) -> None:
    alice, bob = f"alice-{uuid.uuid4()}", f"bob-{uuid.uuid4()}"
    with by_token.browser() as browser, by_token.browser() as other:
        browser.http.headers["X-Id-Token"] = issuer.token(alice)
        other.http.headers["X-Id-Token"] = issuer.token(bob)
        browser.connect()
        owner = browser.passed()["akoya-owner"]
        assert other.fetch("/accounts").status_code == 401
        assert other.connections()["connections"] == []
        other.http.headers["X-Id-Token"] = (
            f"Bearer {issuer.token(alice, aud=['x', AUDIENCE], exp=int(time.time()) + 99)}"
        )
        assert other.passed()["akoya-owner"] == owner, "another token of the same user"
        other.http.headers["X-Id-Token"] = f"Basic {issuer.token(alice)}"
        assert other.fetch("/accounts").status_code == 401, "another scheme identifies no user"


def test_request_without_a_token_is_anonymous(by_token: GatewayEnv) -> None:
    with by_token.browser() as browser:
        assert browser.fetch("/accounts").status_code == 401
        assert browser.fetch("/public/x").status_code == 200
        assert browser.fetch("/akoya/connect/mikomo").json()["type"].endswith(":no-identity")


@pytest.mark.parametrize("fault", BAD)
def test_token_that_is_not_good_opens_nothing(by_token: GatewayEnv, issuer: Issuer, fault: str) -> None:
    token = issuer.bad_tokens()[fault]
    for path in ("/accounts", "/akoya/", "/akoya/connect/mikomo"):
        status, body = get(by_token.port, path, f"X-Id-Token: {token}", "Accept: application/json")
        assert status == 401, body
        assert body["type"] == "urn:akoya-gateway:problem:identity-rejected"
    assert token not in by_token.log()


def test_rejected_token_is_logged_with_the_rule(
    by_token: GatewayEnv, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Users see a page without it, and a wrong `audience` in gateway.yaml rejects all of them."""
    caplog.set_level("INFO")
    token = issuer.token("alice", aud="another")

    def logged() -> bool:
        # At most one event a second is logged, so this request may be one of those without. Behind nginx it is two.
        get(by_token.port, "/accounts", f"X-Id-Token: {token}", "Accept: application/json")
        lines = [*by_token.log().splitlines(), *caplog.text.splitlines()]  # The middleware logs in this process.
        return any("request rejected" in line and "aud does not contain" in line for line in lines)

    until(logged, "the reason is logged")


def test_two_tokens_or_an_alias_are_refused(by_token: GatewayEnv, issuer: Issuer) -> None:
    token = issuer.token()
    for name in ("X-Id-Token", "X_Id_Token", "x.id.token"):
        status, body = get(by_token.port, "/public/x", f"X-Id-Token: {token}", f"{name}: {token}")
        seen = [key for key, value in body["headers"] if token in value] if status == 200 else []
        assert status in (400, 403) or seen == ["x-id-token"], "nginx has dropped the alias"


def test_token_is_good_until_it_runs_out_although_it_is_remembered(by_token: GatewayEnv, issuer: Issuer) -> None:
    def status(token: str) -> int:
        return get(by_token.port, "/akoya/", f"X-Id-Token: {token}", "Accept: application/json")[0]

    for left in (6, 12, 24):  # within the 30 seconds of permitted clock skew; a busy machine needs more of them
        token = issuer.token(exp=int(time.time()) - 30 + left)
        if status(token) == 200:
            break
    else:
        pytest.fail("the token was never accepted")
    until(lambda: status(token) == 401, "the token has expired", within=60)


@pytest.mark.parametrize("entrypoint", ["sidecar", "middleware"])
def test_missing_issuer_keys_are_503_and_never_an_anonymous_caller(tmp_path: Path, entrypoint: str) -> None:
    with Issuer() as issuer:
        issuer.down = True
        with GatewayEnv(tmp_path, entrypoint=entrypoint, changes={"identity": issuer.config()}) as env:
            for path in ("/accounts", "/optional", "/akoya/"):
                status, body = get(
                    env.port, path, f"Authorization: Bearer {issuer.token()}", "Accept: application/json"
                )
                assert (status, body["type"]) == (503, "urn:akoya-gateway:problem:identity-keys")
            assert get(env.port, "/public/x", f"Authorization: Bearer {issuer.token()}")[0] == 200
            issuer.down = False
            bearer = f"Authorization: Bearer {issuer.token()}"
            until(lambda: get(env.port, "/optional", bearer)[0] == 200, "the keys are fetched again")


IDENTITY = Identity(IdentitySource.JWT, "x-id-token", "unused", ISSUER, AUDIENCE)


def request_info(token: str) -> RequestInfo:
    return RequestInfo("GET", b"/", b"", [(b"host", b"app"), (b"x-id-token", token.encode())], None, "test")


async def test_what_is_remembered_of_tokens_is_bounded_and_never_the_token() -> None:
    with Issuer() as issuer:
        async with http_client() as http:
            known = JWTAuthenticator(
                IDENTITY, RemoteKeySet(issuer.jwks_uri, http, time.time, timeout=60), time.time, max_entries=3
            )
            tokens = [issuer.token(f"user-{n}") for n in range(5)]
            owners = [await known.owner(request_info(token)) for token in tokens]
            assert len(set(owners)) == 5
            assert [known.get_cached(request_info(token)) for token in tokens] == [NotCached.NOT_CACHED] * 3 + owners[
                3:
            ]
            assert issuer.fetched == 1
            kept = repr(known._cache)
            assert not any(token in kept or token[-20:] in kept for token in tokens)


async def test_key_that_is_withdrawn_stops_counting() -> None:
    now = time.time()
    with Issuer() as issuer:
        async with http_client() as http:
            known = JWTAuthenticator(
                IDENTITY, RemoteKeySet(issuer.jwks_uri, http, lambda: now, timeout=60), lambda: now
            )
            token = issuer.token(exp=int(now) + 100_000)
            assert await known.owner(request_info(token)) == known.get_cached(request_info(token))
            issuer.served = [ECKey.generate_key("P-256", {"kid": "e9"}, private=True).as_dict(private=False)]
            now += CACHE_SECONDS
            assert known.get_cached(request_info(token)) is NotCached.NOT_CACHED
            now += 4000
            with pytest.raises(UserError) as refusal:
                await known.owner(request_info(token))
            assert refusal.value.code == "identity-rejected"


async def test_tokens_of_unknown_keys_do_not_drive_fetches() -> None:
    with Issuer() as issuer:
        async with http_client() as http:
            known = JWTAuthenticator(IDENTITY, RemoteKeySet(issuer.jwks_uri, http, time.time, timeout=60), time.time)
            unknown_key = ECKey.generate_key("P-256", {"kid": "e1"}, private=True)
            strange = [issuer.token(f"u{n}", header={"kid": f"k{n}"}, key=unknown_key) for n in range(20)]
            strange += [issuer.token(f"v{n}", key=unknown_key) for n in range(20)]
            responses = await asyncio.gather(
                *(known.owner(request_info(token)) for token in strange), return_exceptions=True
            )
            assert all(isinstance(response, UserError) for response in responses)
            assert issuer.fetched <= 2


async def test_token_signed_by_another_key_of_the_set_than_its_kid_names_is_accepted() -> None:
    """RFC 7515 section 4.1.4: `kid` is a hint."""
    with Issuer() as issuer:
        old = ECKey.generate_key("P-256", {"kid": "old"}, private=True)
        issuer.served = [old.as_dict(private=False), *issuer.served]
        async with http_client() as http:
            known = JWTAuthenticator(IDENTITY, RemoteKeySet(issuer.jwks_uri, http, time.time, timeout=60), time.time)
            assert await known.owner(request_info(issuer.token(header={"kid": "old"})))
            assert issuer.fetched == 1


async def test_key_that_is_replaced_under_its_kid_is_fetched_once_and_not_again_within_ten_seconds() -> None:
    now = time.time()
    with Issuer() as issuer:
        async with http_client() as http:
            known = JWTAuthenticator(
                IDENTITY, RemoteKeySet(issuer.jwks_uri, http, lambda: now, timeout=60), lambda: now
            )
            assert await known.owner(request_info(issuer.token("before")))
            forged = issuer.token("forged", key=ECKey.generate_key("P-256", {"kid": "e1"}, private=True))
            issuer.key = ECKey.generate_key("P-256", {"kid": "e1", "alg": "ES256", "use": "sig"}, private=True)
            issuer.served = [issuer.key.as_dict(private=False)]
            assert await known.owner(request_info(issuer.token("after")))
            assert issuer.fetched == 2
            for _ in range(20):
                with pytest.raises(UserError):
                    await known.owner(request_info(forged))
            assert issuer.fetched == 2
