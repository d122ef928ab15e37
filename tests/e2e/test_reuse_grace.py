"""A provider with a grace period for spent refresh tokens: a refresh whose response was lost is repeated at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.environment import GatewayEnv


@pytest.mark.parametrize("dialect", ["hydra", "dex"])
@pytest.mark.parametrize("fault", ["cut_after", "cut_during"])
def test_refresh_after_a_lost_response_succeeds_within_the_rotation_grace(
    tmp_path: Path, dialect: str, fault: str
) -> None:
    with GatewayEnv(tmp_path, settings={"rotation_grace": 30.0, "dialect": dialect}) as env, env.browser() as browser:
        assert env.config()["environments"]["double"]["dialect"]["reuse_grace"] == "30s"
        browser.connect()
        before = browser.passed()["akoya-id-token"]
        env.akoya.fault(fault, "token.refresh_token", times=2)
        browser.fetch("/accounts/stale")
        deadline = time.monotonic() + 60
        while (passed := browser.passed()["akoya-id-token"]) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert passed != before
        refreshes = [event["outcome"] for event in env.akoya.events("token") if event["grant_type"] == "refresh_token"]
        assert refreshes == ["issued"] * 3
        (connection,) = browser.connections()["connections"]
        assert connection["state"] == "live"
