"""Test that a complete connect flow at log level debug leaks no secret into the log or the metrics."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.environment import CLIENT_SECRET, HMAC_SECRET, STORE_KEY, GatewayEnv
from tests.support.waiting import until

GRANTED = 'akoya_gateway_attempts_finished_total{connector="mikomo",result="granted"} 1.0'


def metrics_of(env: GatewayEnv) -> str:
    return httpx.get(f"{env.admin_url}/metrics", trust_env=False, timeout=60).text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_flow_at_debug_level_leaves_no_secret_behind(tmp_path: Path, workers: str) -> None:
    changes = {"logging": {"level": "debug", "format": "json"}}
    secrets = {CLIENT_SECRET, HMAC_SECRET, STORE_KEY}
    with GatewayEnv(tmp_path, algorithm="hmac-sha256", changes=changes, options=("--workers", workers)) as env:
        with env.browser() as browser:
            authorization = browser.begin()
            callback = env.akoya.consent(authorization, "mikomo_1")
            for url in (authorization, callback):
                query = parse_qs(urlsplit(url).query)
                secrets |= {value for name in ("state", "code") for value in query.get(name, [])}
            assert browser.go(callback).status_code in (302, 303)
            secrets |= {cookie.value or "" for cookie in browser.http.cookies.jar}
            secrets.add(browser.passed()["akoya-id-token"])
            # Denied, replayed and forged requests, because unvalidated text reaches a log this way.
            browser.go(callback)
            browser.go("/akoya/callback?code=forged-code-value&state=forged-state-value")
            browser.go("/akoya/callback?error=access_denied&error_description=%0d%0a%7B%22forged%22%3A1%7D&state=x")
            browser.go("/accounts?token=token-in-a-query")
            browser.fetch("/accounts", headers={"authorization": "Bearer bearer-of-the-client-1"})
            secrets |= {"forged-code-value", "forged-state-value", "token-in-a-query", "bearer-of-the-client-1"}
        # Another worker's metrics are up to a second old.
        time.sleep(1.5)
        until(lambda: GRANTED in metrics_of(env), "the metrics are complete")
        metrics = metrics_of(env)
        ready = httpx.get(f"{env.admin_url}/readyz", trust_env=False, timeout=60).text
    log = env.log()
    lines = [json.loads(line) for line in log.splitlines()]
    assert sum(line["event"] == "request" for line in lines) == 8
    assert len(secrets) > 8
    for secret in secrets - {"x", ""}:
        assert secret not in log
        assert secret not in metrics + ready
    assert "eyJ" not in log
