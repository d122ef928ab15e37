from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.authentication.issuer import Issuer
from tests.support.environment import GatewayEnv
from tests.support.forward_auth import ProxiedEnv, get
from tests.support.proxies import ProxyMissing
from tests.support.waiting import until

ENTRYPOINTS = ["sidecar", "middleware", "nginx"]
"""Entry points. `nginx` is forward-auth behind a real nginx."""
USER_FROM_AN_OUTER_PROXY = {
    "# proxy_set_header X-Forwarded-User $remote_user;": "proxy_set_header X-Forwarded-User $http_x_forwarded_user;"
}
"""The line that an operator uncomments in nginx's file when a proxy in front of nginx signs users in.

The tests act as that outer proxy.
"""


def env_of(folder: Path, entrypoint: str, changes: dict[str, Any]) -> GatewayEnv:
    changes = {"trusted_proxies": ["127.0.0.1/32"], **changes}
    if entrypoint != "nginx":
        return GatewayEnv(folder, entrypoint=entrypoint, changes=changes)
    try:
        return ProxiedEnv(folder, "nginx", USER_FROM_AN_OUTER_PROXY, changes=changes)
    except ProxyMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module", params=ENTRYPOINTS)
def by_header(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    folder = tmp_path_factory.mktemp("env")
    with env_of(folder, request.param, {"identity": {"header": "X-Forwarded-User"}}) as env:
        yield env


@pytest.fixture(scope="module", params=ENTRYPOINTS)
def by_token(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Iterator[GatewayEnv]:
    folder = tmp_path_factory.mktemp("env")
    with env_of(folder, request.param, {"identity": issuer.config(header="X-Id-Token")}) as env:
        line = f"X-Id-Token: {issuer.token(exp=int(time.time()) + 3600)}"
        # On a busy machine the first fetch of the keys may take longer than its timeout, which is a 503.
        until(lambda: get(env.port, "/akoya/", line, "Accept: application/json")[0] == 200, "the keys are fetched")
        yield env
