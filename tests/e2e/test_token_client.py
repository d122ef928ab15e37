"""The clients of `akoya_verify.client` against a gateway, the emulator and its data API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from akoya_verify.client import AsyncTokenClient, NeedsReconnect, TokenAuth, TokenClient, Unavailable
from tests.support.environment import Browser, GatewayEnv
from tests.support.waiting import until

BEARER = "a-bearer-for-background-jobs-in-tests"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), token_bearer=BEARER) as env:
        yield env


@pytest.fixture
def owner(browser: Browser) -> str:
    browser.connect()
    return str(browser.passed()["akoya-owner"])


class Counted(httpx.HTTPTransport):
    """Counts the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        return super().handle_request(request)


async def test_clients_return_the_token_of_the_requests_and_cache_it(
    env: GatewayEnv, browser: Browser, owner: str
) -> None:
    passed, now = browser.passed(), 0.0
    transport = Counted()
    http = httpx.Client(transport=transport)
    with TokenClient(env.admin_url, BEARER, http=http, clock=lambda: now) as tokens:
        token = tokens.get("mikomo", owner)
        assert (token.id_token, token.grant, token.owner) == (passed["akoya-id-token"], passed["akoya-grant"], owner)
        assert (token.interaction_type, token.last_access) == ("batch", passed["akoya-last-access"])
        assert token.expires is not None
        now = token.expires - 31.0
        assert tokens.get("mikomo", owner) is token
        assert tokens.get("mikomo", owner, token.grant) is not token
        assert transport.count == 2
        now = token.expires - 30.0
        assert tokens.get("mikomo", owner) is not token
        now = 0.0
        tokens.forget("mikomo", owner)
        tokens.get("mikomo", owner)
        assert transport.count == 4
    async with AsyncTokenClient(env.admin_url, BEARER) as asynchronous:
        received = await asynchronous.get("mikomo", owner)
        assert received.id_token == token.id_token
        assert await asynchronous.get("mikomo", owner) is received


async def test_owner_without_the_bank_needs_to_connect_it_at_the_url(env: GatewayEnv, owner: str) -> None:
    with TokenClient(env.admin_url, BEARER) as tokens, pytest.raises(NeedsReconnect) as never_connected:
        tokens.get("other", owner)
    assert (never_connected.value.code, never_connected.value.url) == (
        "not-connected",
        f"{env.url}/akoya/connect/other",
    )


async def test_owner_whose_connection_has_ended_needs_to_connect_it_again(
    env: GatewayEnv, browser: Browser, owner: str
) -> None:
    env.akoya.revoke_consent(user="mikomo_1")
    browser.fetch("/accounts/stale")
    until(lambda: browser.fetch("/accounts").status_code == 401, "the grant has ended")
    async with AsyncTokenClient(env.admin_url, BEARER) as tokens:
        with pytest.raises(NeedsReconnect) as ended:
            await tokens.get("mikomo", owner)
    assert (ended.value.code, ended.value.url) == ("reconnect", f"{env.url}/akoya/connect/mikomo")


def test_other_refusals_are_no_reason_to_connect(env: GatewayEnv, owner: str) -> None:
    for bearer, grant, connector, expected in (
        ("wrong", None, "mikomo", (401, "unauthorized")),
        (BEARER, "g_AAECAwQFBgcICQoLDA0ODw", "mikomo", (404, "unknown-grant")),
        (BEARER, None, "unknown", (404, "not-connected")),
    ):
        with TokenClient(env.admin_url, bearer) as tokens, pytest.raises(Unavailable) as refused:
            tokens.get(connector, owner, grant)
        assert (refused.value.status, refused.value.code) == expected
        assert not isinstance(refused.value, NeedsReconnect)


async def test_authentication_calls_the_data_api_with_token_and_context(
    env: GatewayEnv, browser: Browser, owner: str
) -> None:
    with TokenClient(env.admin_url, BEARER) as tokens:
        provider = tokens.get("mikomo", owner).provider
        with httpx.Client(base_url=env.akoya.url, auth=TokenAuth(tokens, "mikomo", owner), trust_env=False) as akoya:
            assert akoya.get(f"/balances/v3/{provider}").status_code == 200
            with pytest.raises(TypeError, match="AsyncTokenClient"):
                await httpx.AsyncClient(auth=TokenAuth(tokens, "mikomo", owner), trust_env=False).get(env.akoya.url)
    async with AsyncTokenClient(env.admin_url, BEARER) as asynchronous:
        auth = TokenAuth(asynchronous, "mikomo", owner)
        async with httpx.AsyncClient(base_url=env.akoya.url, auth=auth, trust_env=False) as akoya_async:
            assert (await akoya_async.get(f"/balances/v3/{provider}")).status_code == 200


def test_request_with_a_refused_token_is_sent_once_more_with_the_newer_one(
    env: GatewayEnv, browser: Browser, owner: str
) -> None:
    seen: list[str] = []

    def akoya(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(401 if seen[-1] == f"Bearer {old}" else 200)

    with TokenClient(env.admin_url, BEARER) as tokens:
        old = tokens.get("mikomo", owner).id_token
        browser.fetch("/accounts/stale")
        until(lambda: browser.passed()["akoya-id-token"] != old, "the token has been refreshed")
        with httpx.Client(transport=httpx.MockTransport(akoya), auth=TokenAuth(tokens, "mikomo", owner)) as client:
            assert client.post("https://akoya.example/").status_code == 401
            assert client.get("https://akoya.example/").status_code == 200
    assert seen[:2] == [f"Bearer {old}"] * 2
    assert len(seen) == 3


def test_bearer_is_not_sent_over_plain_http() -> None:
    for url in ("http://10.0.0.1:9090", "http://admin.example.com"):
        with pytest.raises(ValueError, match="allow_plain_http"):
            TokenClient(url, BEARER)
    TokenClient("http://admin.example.com", BEARER, allow_plain_http=True).close()


def test_response_that_is_no_problem_document_is_a_refusal() -> None:
    def admin(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, text="busy", headers={"retry-after": "2"})

    http: Any = httpx.Client(transport=httpx.MockTransport(admin))
    with TokenClient("http://localhost", BEARER, http=http) as tokens, pytest.raises(Unavailable) as refused:
        tokens.get("mikomo", "o")
    assert (refused.value.status, refused.value.retry_after) == (503, 2.0)
