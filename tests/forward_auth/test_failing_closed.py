"""Without a response from the gateway no request gets through, whatever the rule."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import PROXIES, ProxyMissing
from tests.support.waiting import until


@pytest.fixture(params=list(PROXIES))
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> ProxiedEnv:
    """The environment of each proxy, not yet started."""
    try:
        return ProxiedEnv(tmp_path, request.param)
    except ProxyMissing as missing:
        pytest.skip(str(missing))


def test_stopped_gateway_lets_no_request_through_until_it_is_back(proxied: ProxiedEnv) -> None:
    with proxied as env, env.browser() as browser:
        browser.connect()
        cookie = f"Cookie: {cookies(browser)}"
        assert get(env.port, "/accounts", cookie)[0] == 200
        env.gateway.kill()  # type: ignore[union-attr]
        paths = ("/accounts", "/public/x", "/optional", "/nowhere")
        with ThreadPoolExecutor() as pool:  # HAProxy tries for some seconds to reach the gateway
            for status, seen in pool.map(lambda path: get(env.port, path, cookie), paths):
                assert status >= 500, seen
                assert not isinstance(seen, dict) or "headers" not in seen
        env.gateway.start()
        until(lambda: get(env.port, "/accounts", cookie)[0] == 200, "the proxy reaches the gateway again")


def test_store_that_cannot_be_read_is_a_503_and_not_a_logout(proxied: ProxiedEnv) -> None:
    with proxied as env, env.browser() as browser:
        browser.connect()
        cookie = f"Cookie: {cookies(browser)}"
        # With another key the records in the store cannot be decrypted.
        env.gateway.stop()  # type: ignore[union-attr]
        env.gateway._environ["AKOYA_GATEWAY_KEY"] = base64.b64encode(os.urandom(32)).decode()  # type: ignore[union-attr]
        env.gateway.start()
        status, seen = get(env.port, "/accounts", cookie, "Accept: application/json")
        assert status == 503, seen
        # Envoy sends an empty body.
        assert seen == b"" if env.kind == "envoy" else seen["status"] == 503
