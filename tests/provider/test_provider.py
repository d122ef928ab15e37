"""The result of each provider response, with real signatures and real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from functools import cache
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from akoya_gateway.config.model import Bearer, Dialect, Tokens
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    Reply,
    Revoked,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.provider import Provider
from akoya_gateway.secret import Secret
from tests.provider.scripted_provider import SUB, provider, tokens
from tests.support.oauth_values import ISSUER, NOW, claims, client, ec_key, jwks, rsa_key, signed
from tests.support.scripted_server import Received, Responder, Server, in_turn, raw, reply


@cache
def _replaced() -> Any:
    """Return a different key with the same kid as `rsa_key()`."""
    return RSAKey.generate_key(2048, {"kid": "r1"})


OK = b"HTTP/1.1 200 OK\r\n"


def patience(expected: object) -> float:
    """Return a timeout that only a response which never comes exceeds, however busy the machine is."""
    return 0.5 if "no complete response" in repr(expected) else 30.0


async def test_code_becomes_tokens(http: httpx.AsyncClient) -> None:
    id_token = signed(claims())
    async with provider(http, token=reply(200, tokens(id_token))) as (akoya, server):
        granted = await akoya.exchange(Secret("the-code"), Secret("the-verifier"))
        assert granted == TokensIssued(
            TokenSet(
                bearer=id_token,
                refresh_token=Secret("refresh-2"),
                expires_at=NOW + 600,
                scope=("openid", "offline_access"),
                sub=SUB,
                consent_id="7f0c2c52-grant",
            )
        )
        (request,) = server.to("/token")
        assert request.form == {
            "grant_type": "authorization_code",
            "code": "the-code",
            "redirect_uri": "https://app.example.com/akoya/callback",
            "code_verifier": "the-verifier",
        }
        assert request.headers["authorization"].startswith("Basic ")
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_refresh_token_becomes_new_tokens(http: httpx.AsyncClient) -> None:
    async with provider(http, token=reply(200, tokens())) as (akoya, server):
        granted = await akoya.refresh(Secret("refresh-1"), SUB)
        assert isinstance(granted, TokensIssued)
        assert granted.tokens.refresh_token == Secret("refresh-2")
        (request,) = server.to("/token")
        assert request.form["refresh_token"] == "refresh-1"
        assert request.form["client_id"] == "a3f9:demo"
        assert "authorization" not in request.headers


async def test_scope_left_out_means_as_requested_at_first_and_unchanged_later(http: httpx.AsyncClient) -> None:
    async with provider(http, token=reply(200, tokens(scope=None))) as (akoya, _):
        first = await akoya.exchange(Secret("c"))
        later = await akoya.refresh(Secret("r"), SUB)
    assert isinstance(first, TokensIssued) and isinstance(later, TokensIssued)
    assert first.tokens.scope == ("openid", "profile", "offline_access")
    assert later.tokens.scope == ()


async def test_refresh_token_left_out_means_that_the_old_one_stays(http: httpx.AsyncClient) -> None:
    async with provider(http, token=reply(200, tokens(refresh_token=None))) as (akoya, _):
        granted = await akoya.refresh(Secret("r"), SUB)
    assert isinstance(granted, TokensIssued)
    assert granted.tokens.refresh_token is None


@pytest.mark.parametrize(
    ("exp", "expires_in", "end"),
    [(900, 600, 600), (300, 600, 300), (900, None, 900), (None, 600, 600), (None, None, 900), (900, -1, 900)],
)
async def test_end_of_the_bearer(http: httpx.AsyncClient, exp: int | None, expires_in: int | None, end: int) -> None:
    id_token = signed(claims(exp=None if exp is None else NOW + exp))
    dialect = Dialect(optional_claims=frozenset({"exp"}))
    async with provider(http, token=reply(200, tokens(id_token, expires_in=expires_in)), dialect=dialect) as (akoya, _):
        granted = await akoya.refresh(Secret("r"), SUB)
    assert isinstance(granted, TokensIssued)
    assert granted.tokens.expires_at == NOW + end


async def test_grant_id_at_the_top_level_of_the_response_is_used(http: httpx.AsyncClient) -> None:
    body = tokens(signed(claims(grant_id=None)), grant_id="top-level")
    async with provider(http, token=reply(200, body)) as (akoya, _):
        granted = await akoya.exchange(Secret("c"))
    assert isinstance(granted, TokensIssued)
    assert granted.tokens.consent_id == "top-level"


async def test_access_token_is_the_bearer_only_if_the_dialect_names_it(http: httpx.AsyncClient) -> None:
    body = tokens(access_token="access-1", expires_in=None)
    async with provider(http, token=reply(200, body), dialect=Dialect(bearer=Bearer.ACCESS_TOKEN)) as (akoya, _):
        granted = await akoya.exchange(Secret("c"))
    assert isinstance(granted, TokensIssued)
    assert granted.tokens.bearer == Secret("access-1")
    assert granted.tokens.expires_at == NOW + Tokens().assume_lifetime  # exp is that of the id_token, not of this token


async def test_refresh_without_id_token_keeps_the_sub_where_it_is_not_the_bearer(http: httpx.AsyncClient) -> None:
    body = tokens(access_token="access-2")
    del body["id_token"]
    async with provider(http, token=reply(200, body), dialect=Dialect(bearer=Bearer.ACCESS_TOKEN)) as (akoya, _):
        granted = await akoya.refresh(Secret("r"), SUB)
        at_first = await akoya.exchange(Secret("c"))
    assert isinstance(granted, TokensIssued)
    assert granted.tokens.sub == SUB
    assert at_first == Untrusted("id_token: missing", Secret("refresh-2"))


# Responses without usable tokens


@pytest.mark.parametrize(
    ("responder", "expected"),
    [
        (reply(400, {"error": "invalid_request"}), Refused("invalid_request")),
        (reply(400, {"error": "invalid_grant"}), Refused("invalid_grant")),
        (reply(401, {"error": "invalid_client"}), ClientRejected("invalid_client")),
        (reply(503, b"", "Retry-After: 30\r\n"), ProviderDown("the provider responded with 503 (status_503)", 30.0)),
        (reply(500, {"error": "invalid_request"}), ProviderDown("the provider responded with 500 (invalid_request)")),
        (reply(302, b"", "Location: /token\r\n"), ProviderDown("the provider responded with 302 (status_302)")),
        (
            reply(200, b"<html>hello</html>", content_type="text/html"),
            OutcomeUnknown("the token endpoint responded with 200 but the body is unusable: not JSON"),
        ),
        (
            reply(200, b'{"id_token":"' + b"x" * (1 << 20) + b'"}'),
            OutcomeUnknown("the token endpoint responded with 200 but the body is unusable: more than 262144 bytes"),
        ),
        (raw(), OutcomeUnknown("the connection failed (RemoteProtocolError)")),
        (raw(OK + b"Content-Length: 999\r\n\r\n{"), OutcomeUnknown("the connection failed (RemoteProtocolError)")),
        (raw(hold=True), OutcomeUnknown("no complete response within 0.5 s")),
    ],
)
async def test_token_response_gives_the_expected_outcome(
    http: httpx.AsyncClient, responder: Responder, expected: Any
) -> None:
    async with provider(http, token=responder, timeout=patience(expected)) as (akoya, server):
        assert await akoya.refresh(Secret("r"), SUB) == expected
        assert len(server.to("/token")) == 1
        assert await akoya.exchange(Secret("c")) == expected
        assert len(server.to("/token")) == 2


async def test_no_connection_leaves_the_token_unspent(http: httpx.AsyncClient) -> None:
    async with provider(http, verify=False) as (akoya, _):
        pass
    assert await akoya.refresh(Secret("r"), SUB) == ProviderDown("no connection to the provider (ConnectError)")
    assert await akoya.exchange(Secret("c")) == ProviderDown("no connection to the provider (ConnectError)")
    assert await akoya.revoke(Secret("r")) == ProviderDown("no connection to the provider (ConnectError)")


# Trust


@pytest.mark.parametrize(
    ("id_token", "because", "detail"),
    [
        (signed(claims(), rsa_key("attacker"), kid="r1"), DistrustReason.ID_TOKEN, "the signature is wrong"),
        (signed(claims(iss="https://evil.example/")), DistrustReason.ID_TOKEN, "iss is not the environment's issuer"),
        (signed(claims(aud="other")), DistrustReason.ID_TOKEN, "aud does not contain the client_id"),
        (signed(claims(exp=NOW - 100)), DistrustReason.ID_TOKEN, "exp is past"),
        (signed(claims(exp=NOW - 30)), DistrustReason.ID_TOKEN, "exp is past"),
        (signed(claims(sub="another-login")), DistrustReason.SUBJECT, "sub differs from the expected one"),
        (signed(claims(), ec_key("P-256", "e9"), "ES256"), DistrustReason.KEYS, "no key with the token's kid"),
        (Secret("not-a-jwt"), DistrustReason.ID_TOKEN, "not a signed JWT in compact form"),
    ],
)
async def test_tokens_that_fail_validation_are_not_used_and_the_new_refresh_token_is_kept(
    http: httpx.AsyncClient, id_token: Secret, because: DistrustReason, detail: str
) -> None:
    async with provider(http, token=reply(200, tokens(id_token))) as (akoya, _):
        response = await akoya.refresh(Secret("r"), SUB)
    assert response == Untrusted(f"id_token: {detail}", Secret("refresh-2"), because)


async def test_login_whose_bearer_has_expired_within_the_leeway_is_accepted(http: httpx.AsyncClient) -> None:
    """The grant is refreshed by its first request. The code cannot be used again."""
    async with provider(http, token=reply(200, tokens(signed(claims(exp=NOW - 30))))) as (akoya, _):
        assert isinstance(await akoya.exchange(Secret("code")), TokensIssued)


async def test_untrusted_response_without_a_new_refresh_token_rotates_nothing(http: httpx.AsyncClient) -> None:
    body = tokens(signed(claims(aud="other")), refresh_token=None)
    async with provider(http, token=reply(200, body)) as (akoya, _):
        response = await akoya.refresh(Secret("r"), SUB)
    assert isinstance(response, Untrusted)
    assert not response.refresh_token_rotated


async def test_token_without_the_sent_nonce_is_refused(http: httpx.AsyncClient) -> None:
    async with provider(http, token=reply(200, tokens(signed(claims(nonce="n-1"))))) as (akoya, _):
        assert isinstance(await akoya.exchange(Secret("c"), nonce="n-1"), TokensIssued)
        assert isinstance(await akoya.exchange(Secret("c"), nonce="n-2"), Untrusted)


async def test_token_of_a_new_key_is_accepted_after_one_more_fetch(http: httpx.AsyncClient) -> None:
    keys = in_turn(reply(200, jwks(rsa_key())), reply(200, jwks(rsa_key(), ec_key())))
    async with provider(http, keys=keys, token=reply(200, tokens(signed(claims(), ec_key(), "ES256")))) as (
        akoya,
        server,
    ):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert len(server.to("/keys")) == 2


async def test_outage_of_the_keys_is_found_before_the_token_is_spent(http: httpx.AsyncClient) -> None:
    async with provider(http, keys=reply(503), token=reply(200, tokens())) as (akoya, server):
        for response in (await akoya.refresh(Secret("r"), SUB), await akoya.exchange(Secret("c"))):
            assert response == ProviderDown("the provider's keys are unavailable: responded with 503")
        assert server.to("/token") == []


async def test_keys_that_fail_after_the_token_was_spent_do_not_lose_it(http: httpx.AsyncClient) -> None:
    keys = in_turn(reply(200, jwks(rsa_key())), raw())
    async with provider(http, keys=keys, token=reply(200, tokens(signed(claims(), rsa_key("new"))))) as (akoya, _):
        response = await akoya.refresh(Secret("r"), SUB)
    assert response == Untrusted("id_token: no key with the token's kid", Secret("refresh-2"), DistrustReason.KEYS)


async def test_claims_are_validated_without_keys(http: httpx.AsyncClient) -> None:
    body = in_turn(reply(200, tokens()), reply(200, tokens(signed(claims(iss=ISSUER + "x")))))
    async with provider(http, verify=False, token=body) as (akoya, server):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert isinstance(await akoya.refresh(Secret("r"), SUB), Untrusted)
        assert server.to("/keys") == []


GOOD = json.dumps(tokens()).encode()


@pytest.mark.parametrize(
    "responder",
    [
        reply(200, b"\xef\xbb\xbf" + GOOD, content_type="application/json; charset=utf-8"),
        reply(200, GOOD[:-1] + b', "bank": "Z\xfcrich"}', content_type="application/json; charset=iso-8859-1"),
        reply(200, GOOD.decode().encode("utf-16"), content_type="application/json; charset=utf-16"),
        reply(200, GOOD.decode().encode("utf-32"), content_type="application/json"),
        reply(200, gzip.compress(GOOD)),
        reply(200, zlib.compress(GOOD)[2:-4], "Content-Encoding: deflate\r\n"),
        reply(200, b"\r\n" + gzip.compress(GOOD), "Content-Encoding: gzip\r\n"),
        reply(200, b"\xef\xbb\xbf" + gzip.compress(GOOD)),
        reply(200, base64.b64encode(GOOD)),
        reply(200, base64.encodebytes(GOOD).rstrip(b"=\n")),
        reply(200, GOOD + b"\0"),
        reply(200, GOOD, content_type="text/html"),
        reply(200, GOOD[:-1] + b', "a": 1, "a": 2}'),
        reply(200, tokens(scope=["openid", "offline_access"], token_type="N_A")),
        raw(OK + b"Content-Length: 9999\r\n\r\n" + GOOD),
        raw(OK + b"Content-Length: 9999\r\n\r\n" + GOOD, hold=True),
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD)),
        raw(OK + b"Transfer-Encoding: identity\r\n\r\n" + GOOD),
        raw(OK + b"X Odd: 1\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD),
        raw(b"HTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + GOOD),
    ],
)
async def test_valid_response_in_an_unusual_body_is_used(http: httpx.AsyncClient, responder: Responder) -> None:
    async with provider(http, token=responder, timeout=1.5) as (akoya, _):
        for granted in (await akoya.refresh(Secret("r"), SUB), await akoya.exchange(Secret("c"))):
            assert isinstance(granted, TokensIssued), granted
            assert granted.tokens.refresh_token == Secret("refresh-2")
            assert granted.tokens.scope == ("openid", "offline_access")


@pytest.mark.parametrize(
    "responder",
    [
        raw(OK + b'Content-Length: 9999\r\n\r\n{"refresh_token":"refresh-2","id_token":"ey'),
        raw(OK + b'Transfer-Encoding: chunked\r\n\r\n99\r\n{"refresh_token":"refresh-2",', hold=True),
        reply(200, b'{"refresh_token":"refresh-2"}'),
        reply(200, GOOD + b"<!-- served by cache 7 -->"),
        reply(200, gzip.compress(b'{"refresh_token":"refresh-2","id_token":"' + b"ab" * 99)[:-9]),
    ],
)
async def test_new_refresh_token_in_a_broken_response_is_kept(http: httpx.AsyncClient, responder: Responder) -> None:
    async with provider(http, token=responder, timeout=1.5) as (akoya, _):
        untrusted = await akoya.refresh(Secret("r"), SUB)
    assert isinstance(untrusted, Untrusted), untrusted
    assert untrusted.refresh_token == Secret("refresh-2")


async def test_error_in_a_response_that_is_not_http_ends_nothing(http: httpx.AsyncClient) -> None:
    responder = raw(b'HTTP/1.1 400 Bad\r\nX Odd: 1\r\nContent-Length: 25\r\n\r\n{"error":"invalid_grant"}')
    async with provider(http, token=responder) as (akoya, _):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), OutcomeUnknown)


async def test_unreadable_scope_is_reported_once_and_the_requested_one_holds(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with provider(http, token=reply(200, tokens(scope={"a": 1}))) as (akoya, _):
        first, later = await akoya.exchange(Secret("c")), await akoya.refresh(Secret("r"), SUB)
    assert isinstance(first, TokensIssued) and isinstance(later, TokensIssued)
    assert first.tokens.scope == ("openid", "profile", "offline_access")
    assert later.tokens.scope == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "member=scope" in caplog.text


async def test_key_that_is_replaced_under_its_kid_is_fetched_once(http: httpx.AsyncClient) -> None:
    keys = in_turn(reply(200, jwks(rsa_key())), reply(200, jwks(_replaced())))
    body = reply(200, tokens(signed(claims(), _replaced())))
    async with provider(http, keys=keys, token=body) as (akoya, server):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert len(server.to("/keys")) == 2


async def test_key_of_another_type_under_the_same_kid_is_fetched_once(http: httpx.AsyncClient) -> None:
    keys = in_turn(reply(200, jwks(rsa_key())), reply(200, jwks(ec_key("P-256", "r1"))))
    body = reply(200, tokens(signed(claims(), ec_key("P-256", "r1"), "ES256")))
    async with provider(http, keys=keys, token=body) as (akoya, server):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert len(server.to("/keys")) == 2


async def test_wrong_signatures_fetch_the_keys_at_most_once_in_ten_seconds(http: httpx.AsyncClient) -> None:
    body = reply(200, tokens(signed(claims(), rsa_key("attacker"), kid="r1")))
    async with provider(http, token=body) as (akoya, server):
        for _ in range(5):
            assert isinstance(await akoya.refresh(Secret("r"), SUB), Untrusted)
        assert len(server.to("/keys")) == 2


async def test_older_kid_with_the_key_of_today_is_accepted_without_a_fetch(http: httpx.AsyncClient) -> None:
    """Ory Hydra responds to refreshes like this after a key rotation."""
    body = reply(200, tokens(signed(claims(), rsa_key("today"), kid="r1")))
    async with provider(http, keys=reply(200, jwks(rsa_key(), rsa_key("today"))), token=body) as (akoya, server):
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)
        assert len(server.to("/keys")) == 1


async def test_nonce_of_the_login_is_kept_and_held_against_refreshes(http: httpx.AsyncClient) -> None:
    async with provider(http, token=reply(200, tokens(signed(claims(nonce="n-1"))))) as (akoya, _):
        first = await akoya.exchange(Secret("c"), nonce="n-1")
        assert isinstance(first, TokensIssued) and first.tokens.nonce == "n-1"
        later = await akoya.refresh(Secret("r"), SUB, "n-1")
        assert isinstance(later, TokensIssued) and later.tokens.nonce == "n-1"
        other = await akoya.refresh(Secret("r"), SUB, "n-2")
        assert other == Untrusted("id_token: nonce is missing or differs from the one sent", Secret("refresh-2"))


@pytest.mark.parametrize(
    ("responder", "status", "error", "description"),
    [
        (reply(400, {"error": "invalid_grant", "error_description": "code abcd"}), 400, "invalid_grant", "code [...]"),
        (reply(403, b"<html>Access denied</html>"), 403, None, None),
        (reply(308, b"", "Location: /token/\r\n"), 308, None, None),
        (reply(200, tokens(signed(claims(iss="https://x/")))), 200, None, None),
        (reply(200, {}), 200, None, None),
        (reply(503, {"error": "server_error"}), 503, "server_error", None),
    ],
)
async def test_failure_reports_the_providers_response(
    http: httpx.AsyncClient, responder: Responder, status: int, error: str | None, description: str | None
) -> None:
    async with provider(http, token=responder) as (akoya, _):
        failure: Any = await akoya.exchange(Secret("abcd"))
    assert failure.reply == Reply(status, error, description)


# Revocation


@pytest.mark.parametrize(
    ("responder", "expected"),
    [
        (reply(200), Revoked()),
        (reply(400, {"error": "invalid_request"}), ClientRejected("invalid_request")),
        (reply(401, {"error": "unauthorized_client"}), ClientRejected("unauthorized_client")),
        (reply(503), ProviderDown("the provider responded with 503 (status_503)")),
        (raw(), OutcomeUnknown("the connection failed (RemoteProtocolError)")),
        (raw(hold=True), OutcomeUnknown("no complete response within 0.5 s")),
    ],
)
async def test_revocation(http: httpx.AsyncClient, responder: Responder, expected: Any) -> None:
    async with provider(http, revoke=responder, timeout=patience(expected)) as (akoya, server):
        assert await akoya.revoke(Secret("refresh-1")) == expected
        (request,) = server.to("/revoke")
        assert request.form["token"] == "refresh-1"
        assert request.form["token_type_hint"] == "refresh_token"


async def test_environment_without_revocation_is_warned_about(http: httpx.AsyncClient) -> None:
    akoya = Provider(client(revocation_endpoint=None), http, None, Tokens(), lambda: NOW)
    assert await akoya.revoke(Secret("r")) == ClientRejected("no_revocation_endpoint")


# Time


async def test_cancellation_passes_through_and_the_provider_stays_usable(http: httpx.AsyncClient) -> None:
    async with provider(http, token=in_turn(raw(hold=True), reply(200, tokens())), timeout=30) as (akoya, server):
        task = asyncio.create_task(akoya.refresh(Secret("r"), SUB))
        while not server.to("/token"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await akoya.refresh(Secret("r"), SUB), TokensIssued)


async def test_many_refreshes_at_once_each_go_out_once(http: httpx.AsyncClient) -> None:
    async def respond(_: Server, request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        body = json.dumps(tokens(refresh_token=f"{request.form['refresh_token']}-next")).encode()
        writer.write(OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async with provider(http, token=respond, timeout=20) as (akoya, server):
        responses = await asyncio.gather(*(akoya.refresh(Secret(f"r{i}"), SUB) for i in range(100)))
        for i, granted in enumerate(responses):
            assert isinstance(granted, TokensIssued)
            assert granted.tokens.refresh_token == Secret(f"r{i}-next")
        assert sorted(token_request.form["refresh_token"] for token_request in server.to("/token")) == sorted(
            f"r{i}" for i in range(100)
        )
        assert len(server.to("/keys")) == 1
