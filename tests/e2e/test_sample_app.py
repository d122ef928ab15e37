"""The sample app behind a gateway that calls the strict v3 emulator: it gets no token, and its page gets the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from akoya_gateway.sandbox.sample_app import SampleApp
from akoya_verify import keys_of, pem_key
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer

BEARER = "a-bearer-for-background-jobs-in-tests"
AGE = 600
"""Maximum age of the last access of a user, in seconds."""
JWT = re.compile(rb"eyJ[\w-]+\.[\w-]+")


class LateApp:
    """The sample app, which can be made only when the gateway has a key. Records everything that it receives."""

    app: Any

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.owner = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = scope.get("headers", [])
        self.owner = dict(headers).get(b"akoya-owner", b"").decode()
        self.received += [
            repr((scope["path"], scope["query_string"])).encode(),
            *(b": ".join(pair) for pair in headers),
        ]
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def late() -> LateApp:
    return LateApp()


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, late: LateApp) -> Iterator[GatewayEnv]:
    """A gateway whose connector has another name than the bank has at Akoya."""
    rule = {"path": "/bank-data/{connector}/*", "require": "{connector}", "upstream": "bank-data"}
    changes = {
        "connectors": {"savings": {"client": "test-app", "connector": "mikomo", "name": "Mikomo Bank"}},
        "upstreams": {"bank-data": {"data_api": "double"}},
        "access": [rule, {"path": "/*", "require": "any", "otherwise": "connect", "pass_token": False}],
    }
    with GatewayEnv(
        tmp_path_factory.mktemp("env"),
        upstream=AppServer(late),
        changes=changes,
        settings={"max_last_access_age": AGE},
        token_bearer=BEARER,
    ) as env:
        late.app = SampleApp(keys_of([pem_key(env.verification_key, "k1")]))
        yield env


def test_sample_app_and_its_job_get_the_data_of_the_strict_emulator_without_a_token(
    env: GatewayEnv, late: LateApp, browser: Browser
) -> None:
    browser.connect("savings")
    page = browser.go("/accounts")
    assert page.status_code == 200
    (path,) = re.findall(r'data-url="([^"]+)"', page.text)
    assert path == "/bank-data/savings/balances"
    shown = browser.fetch(path)
    assert "Everyday Checking" in shown.text
    assert browser.go("/headers").status_code == 200
    # A job runs long after the user has left.
    env.akoya.advance(AGE * 2)
    job = httpx.get(
        f"{env.admin_url}/akoya/data/savings/balances",
        params={"owner": late.owner},
        headers={"authorization": f"Bearer {BEARER}"},
        trust_env=False,
    )
    assert "Everyday Checking" in job.text
    assert [(event["provider"], event["interaction_type"]) for event in env.akoya.events("data")] == [
        ("mikomo", "user"),
        ("mikomo", "batch"),
    ]
    token = httpx.get(
        f"{env.admin_url}/akoya/token/savings",
        params={"owner": late.owner},
        headers={"authorization": f"Bearer {BEARER}"},
        trust_env=False,
    ).json()["id_token"]
    everything = b"\n".join(late.received)
    assert b"akoya-owner" in everything
    received = [*late.received, page.content, shown.content, str(shown.headers.raw).encode(), job.content]
    assert [one for one in received if JWT.search(one) or token.encode() in one] == []
    assert b"akoya-id-token" not in everything.lower()
