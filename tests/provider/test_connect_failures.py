"""Failed code exchanges: the error code shown to the user and the log entry for the operator."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.endpoints.failures import refusal, report, tokens_or_raise
from akoya_gateway.errors import GatewayError
from akoya_gateway.log import FIELDS
from akoya_gateway.oauth.authorization_response import AuthorizationRefused, parse_authorization_response
from akoya_gateway.provider import Provider, RemoteKeySet
from akoya_gateway.secret import Secret
from tests.support.certificates import self_signed
from tests.support.oauth_values import NOW, claims, client, signed
from tests.support.scripted_server import Responder, raw, reply, serve

CODE = "the-code-4711"


def logged(error: GatewayError, caplog: pytest.LogCaptureFixture) -> tuple[str, dict[str, Any]]:
    caplog.set_level(logging.INFO)
    caplog.clear()
    report(error, "mikomo", "req-1")
    (record,) = caplog.records
    event, fields = getattr(record, FIELDS)
    assert event == "connecting a bank failed"
    assert (fields["connector"], fields["request_id"], fields["result"]) == ("mikomo", "req-1", error.code)
    return record.levelname, {k: v for k, v in fields.items() if k not in ("connector", "request_id", "result")}


async def exchange(http: httpx.AsyncClient, url: str, keys: str | None = None) -> GatewayError:
    app = client(token_endpoint=f"{url}/token", timeout=Seconds(0.5))
    source = None if keys is None else RemoteKeySet(keys, http, lambda: NOW, timeout=0.5)
    response = await Provider(app, http, source, Tokens(), lambda: NOW).exchange(Secret(CODE))
    with pytest.raises(GatewayError) as raised:
        tokens_or_raise(response)
    return raised.value


@pytest.mark.parametrize(
    ("responder", "code", "level", "fields"),
    [
        (
            reply(401, {"error": "invalid_client", "error_description": "Invalid client credentials."}),
            "client-refused",
            "ERROR",
            {"error": "invalid_client", "status": 401, "provider_error": "invalid_client",
             "error_description": "Invalid client credentials."},
        ),
        (
            reply(400, {"error": "invalid_request", "error_description": f"code {CODE} did not match\n"}),
            "code-refused",
            "WARNING",
            {"error": "invalid_request", "status": 400, "provider_error": "invalid_request",
             "error_description": "code [...] did not match"},
        ),
        (
            reply(403, b"<html>Access Denied. Reference 18.abc</html>", content_type="text/html"),
            "client-refused", "ERROR", {"error": "status_403", "status": 403},
        ),
        (
            reply(308, b"", "Location: /token/\r\n"), "provider-redirects", "ERROR",
            {"error": "the provider responded with 308 (status_308)", "reason": "redirected", "status": 308},
        ),
        (
            reply(200, {"id_token": signed(claims(iss="https://x/")).reveal()}), "untrusted-id-token", "WARNING",
            {"error": "id_token: iss is not the environment's issuer", "reason": "id_token", "status": 200},
        ),
        (
            reply(503, b"", "Retry-After: 9\r\n"), "temporarily_unavailable", "WARNING",
            {"error": "the provider responded with 503 (status_503)", "reason": "unavailable", "status": 503},
        ),
        (
            # Dex, before its garbage collector has deleted an expired code.
            reply(500, {"error": "server_error"}), "server_error", "WARNING",
            {"error": "the provider responded with 500 (server_error)", "reason": "unavailable", "status": 500,
             "provider_error": "server_error"},
        ),
        (raw(hold=True), "outcome-unknown", "WARNING", {"error": "no complete response within 0.5 s"}),
    ],
)  # fmt: skip
async def test_failed_exchange_is_logged_with_its_reason(
    http: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    responder: Responder,
    code: str,
    level: str,
    fields: dict[str, Any],
) -> None:
    async with serve(token=responder) as server:
        error = await exchange(http, server.url)
    assert error.code == code
    assert logged(error, caplog) == (level, fields)
    assert CODE not in caplog.text


async def test_provider_that_is_not_there_is_logged_with_its_reason(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(keys=reply(503)) as server:
        keys = await exchange(http, server.url, f"{server.url}/keys")
    assert keys.code == "temporarily_unavailable"
    assert logged(keys, caplog) == (
        "WARNING", {"error": "the provider's keys are unavailable: responded with 503", "reason": "keys-unavailable"}
    )  # fmt: skip
    nobody = await exchange(http, server.url)
    assert nobody.code == "provider-unreachable"
    assert logged(nobody, caplog) == (
        "WARNING", {"error": "no connection to the provider (ConnectError)", "reason": "unreachable"}
    )  # fmt: skip


async def test_certificate_that_is_not_trusted_is_an_operator_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pem").write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        error = await exchange(http, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    listening.close()
    assert error.code == "certificate-not-trusted"
    level, fields = logged(error, caplog)
    assert (level, fields["reason"]) == ("ERROR", "certificate-not-trusted")
    assert fields["error"].startswith("the provider's certificate is not trusted (self")


@pytest.mark.parametrize(
    ("word", "code", "level"),
    [
        ("login_required", "authorization-refused", "WARNING"),
        ("consent_required", "authorization-refused", "WARNING"),
        ("server_error", "server_error", "WARNING"),
        ("invalid_scope", "invalid_scope", "ERROR"),
        ("access_denied", "access_denied", "INFO"),
    ],
)
def test_words_of_the_bank_at_the_redirect_uri_are_logged(
    caplog: pytest.LogCaptureFixture, word: str, code: str, level: str
) -> None:
    callback = parse_authorization_response(
        f"error={word}&error_description=Session+expired%0d%0aat+bank+ory_ac_9xYz12345678&state=s".encode()
    )
    assert isinstance(callback, AuthorizationRefused)
    error = refusal(callback)
    assert error.code == code
    assert logged(error, caplog) == (
        level, {"error": word, "error_description": "Session expired at bank [...]"}
    )  # fmt: skip
