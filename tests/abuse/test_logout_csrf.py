"""A cross-site form sends no cookie (SameSite), so the response must not delete the cookie either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.environment import GatewayEnv


@pytest.mark.parametrize("entrypoint", ["sidecar", "middleware"])
def test_form_of_another_site_does_not_log_out(tmp_path: Path, entrypoint: str) -> None:
    with GatewayEnv(tmp_path, entrypoint=entrypoint) as env, env.browser() as other_browser:
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            response = other_browser.fetch("/akoya/logout", "POST", data={"csrf": "x"}, headers=headers)
            assert response.status_code == 403
            assert "set-cookie" not in response.headers
            assert "clear-site-data" not in response.headers
        own = other_browser.fetch("/akoya/logout", "POST", data={"csrf": "x"}, headers={"origin": env.url})
        assert own.status_code == 303
        assert "Max-Age=0" in own.headers["set-cookie"]
