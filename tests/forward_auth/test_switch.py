"""Behind a load balancer and with an app behind it, the gateway serves forward-auth only if it is enabled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import GatewayEnv

QUESTION = {"x-forwarded-method": "GET", "x-forwarded-uri": "/accounts"}


@pytest.mark.parametrize("entrypoint", ["sidecar", "middleware"])
@pytest.mark.parametrize(("setting", "status"), [(None, 404), (False, 404), (True, 200)])
def test_script_in_a_page_cannot_request_its_users_token(
    tmp_path: Path, entrypoint: str, setting: bool | None, status: int
) -> None:
    changes: dict[str, Any] = {"trusted_proxies": ["127.0.0.1/32"]}
    if setting is not None:
        changes["forward_auth"] = setting
    with GatewayEnv(tmp_path, entrypoint=entrypoint, changes=changes) as env, env.browser() as browser:
        browser.connect()
        response = browser.fetch("/akoya/forward-auth", headers=QUESTION)
        assert response.status_code == status
        assert ("akoya-id-token" in response.headers) == (status == 200)


def test_gateway_without_an_upstream_forwards_nothing(tmp_path: Path) -> None:
    changes = {"trusted_proxies": ["127.0.0.1/32"], "upstream": None}
    with GatewayEnv(tmp_path, changes=changes) as env, env.browser() as browser:
        browser.connect()
        assert browser.fetch("/akoya/forward-auth", headers=QUESTION).status_code == 200
        response = browser.fetch("/accounts")
        assert response.status_code == 404
        assert response.json()["type"].endswith("no-upstream")
