"""The sample app at the strict v3 emulator: as a user, and as a batch job with a token of the admin listener."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from akoya_gateway.sandbox.sample_app import SampleApp
from akoya_gateway.sandbox.sample_data import DataAccess, NoData, balances
from akoya_verify import keys_of, pem_key
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer

BEARER = "a-bearer-for-background-jobs-in-tests"
AGE = 600
"""Maximum age of the last access of a user, in seconds."""


class LateApp:
    """The sample app, which can be made only when the emulator has a port. Keeps the owner of the last request."""

    app: Any
    owner = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.owner = dict(scope.get("headers", ())).get(b"akoya-owner", b"").decode()
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def late() -> LateApp:
    return LateApp()


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, late: LateApp) -> Iterator[GatewayEnv]:
    """A gateway whose connector has another name than the bank has at Akoya."""
    changes = {
        "connectors": {"savings": {"client": "test-app", "connector": "mikomo", "name": "Mikomo Bank"}},
        "access": [{"path": "/*", "require": "any", "otherwise": "connect"}],
    }
    with GatewayEnv(
        tmp_path_factory.mktemp("env"),
        upstream=AppServer(late),
        changes=changes,
        settings={"max_last_access_age": AGE},
        token_bearer=BEARER,
    ) as env:
        keys = keys_of([pem_key(env.verification_key, "k1")])
        late.app = SampleApp(env.akoya.url, keys, httpx.AsyncClient(trust_env=False, timeout=60))
        yield env


def fetched(env: GatewayEnv, access: DataAccess) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            return await balances(http, env.akoya.url, access)

    return asyncio.run(fetch())


def test_the_sample_app_passes_the_strict_emulator_as_user_and_as_batch(
    env: GatewayEnv, late: LateApp, browser: Browser
) -> None:
    browser.connect("savings")
    page = browser.go("/accounts")
    assert page.status_code == 200
    assert "Everyday Checking" in page.text
    assert "x-akoya-interaction-type: user" in page.text
    document = httpx.get(
        f"{env.admin_url}/akoya/token/savings",
        params={"owner": late.owner},
        headers={"authorization": f"Bearer {BEARER}"},
        trust_env=False,
    ).json()
    env.akoya.advance(AGE * 2)
    job = DataAccess.of_token(document)
    assert fetched(env, job)[0]["nickname"] == "Everyday Checking"
    assert [(event["provider"], event["interaction_type"]) for event in env.akoya.events("data")] == [
        ("mikomo", "user"),
        ("mikomo", "batch"),
    ]
    with pytest.raises(NoData, match="Bad request"):  # the same time as the last access of a user is too old
        fetched(env, DataAccess(job.provider, job.id_token, "user", job.last_access))
