"""No output contains a secret: reprs, exceptions, details, and every log line down to DEBUG."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import httpx
import pytest

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.oauth.authorization_request import authorization_request, code_verifier
from akoya_gateway.oauth.client_authentication import basic_credentials
from akoya_gateway.oauth.id_token import IdTokenRejected, validate_id_token
from akoya_gateway.oauth.revocation import revocation_request
from akoya_gateway.oauth.token_messages import HttpResponse, exchange_request, parse_token_response, refresh_request
from akoya_gateway.provider import Provider, RemoteKeySet
from akoya_gateway.secret import Secret
from tests.support.oauth_values import NOW, SECRET, claims, client, connector, environment, jwks, rsa_key, signed
from tests.support.scripted_server import raw, reply, serve

CODE = "code-e5d1c0de"
VERIFIER = "verifier-7be11f1e4"
REFRESH = "refresh-01d-5ec"
ROTATED = "refresh-4e3-5ec"
ACCESS = "access-70ce4"


def needles(*id_tokens: Secret) -> list[str]:
    parts = [part for token in id_tokens for part in token.reveal().split(".")[1:]]
    return [
        CODE,
        VERIFIER,
        REFRESH,
        ROTATED,
        ACCESS,
        SECRET,
        basic_credentials("a3f9:demo", Secret(SECRET))[6:],
        *parts,
    ]


def assert_clean(text: str, secrets: list[str]) -> None:
    assert [secret for secret in secrets if secret in text] == []


def test_repr_of_requests_and_outcomes_has_no_secrets() -> None:
    app = client()
    good = signed(claims())
    body = (
        f'{{"id_token":"{good.reveal()}","refresh_token":"{ROTATED}","access_token":"{ACCESS}","token_type":"bearer"}}'
    ).encode()
    shown: list[Any] = [
        exchange_request(app, Secret(CODE), Secret(VERIFIER)),
        refresh_request(app, Secret(REFRESH)),
        revocation_request(app, Secret(REFRESH)),
        authorization_request(app, connector(app), CODE),
        code_verifier(),
        HttpResponse(200, body),
        parse_token_response(app.environment.dialect, HttpResponse(200, body), NOW),
        parse_token_response(app.environment.dialect, HttpResponse(200, body.replace(b"bearer", b"mac")), NOW),
        parse_token_response(app.environment.dialect, HttpResponse(200, body[:-1]), NOW),
        parse_token_response(app.environment.dialect, HttpResponse(400, body), NOW),
        app,
    ]
    assert_clean("\n".join(f"{value!r} {value}" for value in shown), needles(good))


@pytest.mark.parametrize("changes", [{"aud": "x"}, {"iss": "x"}, {"exp": 1}, {"sub": 7}, {"sub": "other"}])
def test_rejection_and_its_traceback_do_not_print_the_token(changes: dict[str, Any]) -> None:
    token = signed(claims(**changes))
    for text in (token, Secret(token.reveal()[:-2]), Secret("." + token.reveal())):
        with pytest.raises(IdTokenRejected) as rejected:
            validate_id_token(text, None, client(), environment(), NOW, nonce="n", expected_sub="me")
        shown = "".join(traceback.format_exception(rejected.value)) + repr(rejected.value)
        assert rejected.value.__cause__ is None
        assert_clean(shown, needles(token))


@pytest.mark.parametrize("httpcore", ["as it comes", "at DEBUG"])
async def test_complete_run_leaves_no_secret_in_any_log_or_response(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, httpcore: str
) -> None:
    caplog.set_level(logging.DEBUG)
    if httpcore == "at DEBUG":
        caplog.set_level(logging.DEBUG, "httpcore")
    good, foreign, forged = signed(claims()), signed(claims(sub="other")), signed(claims(), rsa_key("x"), kid="r1")

    def body(token: Secret, **more: Any) -> dict[str, Any]:
        return {"id_token": token.reveal(), "refresh_token": ROTATED, "access_token": ACCESS, **more}

    responses = [
        reply(200, body(good)),
        reply(200, body(foreign)),
        reply(200, body(forged)),
        reply(200, body(good, token_type="mac")),
        reply(200, body(good), "Content-Encoding: gzip\r\n"),
        reply(400, {"error": REFRESH * 9, "error_description": REFRESH}),
        reply(400, {"error": "invalid_grant", "error_description": f"bad {REFRESH} {SECRET}"}),
        reply(500, {"error": "x y", "error_description": CODE}),
        reply(302, b"", "Location: /token\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + good.reveal().encode()),
        raw(hold=True),
    ]
    if httpcore == "as it comes":  # a peer that echoes the request, which httpcore would log at DEBUG
        responses.append(raw(f"{REFRESH} {ROTATED}\r\n\r\n".encode()))
    shown: list[object] = []
    for responder in responses:
        async with serve(token=responder, revoke=responder, keys=reply(200, jwks(rsa_key()))) as server:
            app = client(
                token_endpoint=f"{server.url}/token",
                revocation_endpoint=f"{server.url}/revoke",
                timeout=Seconds(0.3),
            )
            akoya = Provider(app, http, RemoteKeySet(f"{server.url}/keys", http, lambda: NOW), Tokens(), lambda: NOW)
            shown += [
                await akoya.exchange(Secret(CODE), Secret(VERIFIER)),
                await akoya.refresh(Secret(REFRESH), "CghtaWtvbW9fMRIGbWlrb21v"),
                await akoya.revoke(Secret(REFRESH)),
                akoya,
            ]
            task = asyncio.create_task(akoya.refresh(Secret(REFRESH), "s"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
            shown += traceback.format_exception(cancelled.value)
    assert ("send_request_body" in caplog.text) is (httpcore == "at DEBUG")
    assert_clean(caplog.text + "\n".join(f"{value!r} {value}" for value in shown), needles(good, foreign, forged))
