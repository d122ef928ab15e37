from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.environment import ACCESS, Browser, GatewayEnv

BEARER = "a-bearer-for-background-jobs-in-tests"
RULE = {
    "path": "/bank-data/{connector}/*",
    "require": "{connector}",
    "upstream": "bank-data",
    "pass_token": False,
    "grant": {"query": "login"},
}
CHANGES: dict[str, Any] = {
    "access": [
        RULE,
        {"path": "/send/{connector}/*", "require": "{connector}", "upstream": "bank-data", "methods": ["GET", "POST"]},
        *ACCESS,
    ],
    "upstreams": {"bank-data": {"data_api": "double", "timeout": "60s"}},
}


@pytest.fixture(scope="module", params=["sidecar", "app", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    """A gateway with a data API, without a limit of calls, at every entry point that makes calls."""
    with GatewayEnv(
        tmp_path_factory.mktemp("env"),
        entrypoint=request.param,
        token_bearer=BEARER,
        settings={"v3_rate_limit": None, "max_last_access_age": 300.0},
        changes=CHANGES,
    ) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        browser.connect()
        yield browser
    env.akoya.clear_faults()
