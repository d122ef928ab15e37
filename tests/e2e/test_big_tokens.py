"""A token that exceeds the upstream's header limit."""

from __future__ import annotations

import httpx
import pytest

from tests.support.environment import ACCESS, GatewayEnv

BEARER = "a-bearer-for-background-jobs-in-tests"


def test_over_the_limit_the_error_names_the_connector_and_the_ways_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    changes = {"access": [{"path": "/fetch", "require": "any", "pass_token": False}, *ACCESS]}
    with (
        GatewayEnv(
            tmp_path_factory.mktemp("env"),
            settings={"account_count": 300},
            changes=changes,
            token_bearer=BEARER,
            upstream_settings={"max_header_bytes": "4KiB"},
        ) as env,
        env.browser() as browser,
    ):
        browser.connect()
        for _ in range(2):
            response = browser.fetch("/accounts")
            assert response.status_code == 503
            assert response.json()["type"].endswith("headers-too-large")
            for word in ("mikomo", "max_header_bytes", "pass_token"):
                assert word in response.json()["detail"]
        passed = browser.passed("/fetch")
        assert "akoya-id-token" not in passed
        assert passed["akoya-connector"] == "mikomo"
        fetched = httpx.get(
            f"{env.admin_url}/akoya/token/mikomo",
            params={"owner": passed["akoya-owner"]},
            headers={"authorization": f"Bearer {BEARER}"},
            trust_env=False,
        )
        assert len(fetched.json()["id_token"]) > 4096
