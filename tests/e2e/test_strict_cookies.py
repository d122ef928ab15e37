"""`sessions.cookie.same_site: strict`, with a bank at another site, in Chromium and byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.chromium import IN_CHROMIUM, approve, log_in
from tests.support.environment import GatewayEnv


class OtherSite(GatewayEnv):
    """The bank is at `localhost`, which is another site than `127.0.0.1`."""

    def config(self) -> dict[str, Any]:
        config = super().config()
        double = config["environments"]["double"]
        double["authorization_endpoint"] = double["authorization_endpoint"].replace("127.0.0.1", "localhost")
        config["sessions"]["cookie"] = {"same_site": "strict"}
        config["connectors"]["mikomo"]["other_login"] = "ask"
        return config


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with OtherSite(tmp_path_factory.mktemp("env")) as env:
        yield env


def test_callback_sets_the_cookie_and_redirects_with_a_page(env: GatewayEnv) -> None:
    with env.browser() as browser:
        callback = env.akoya.consent(browser.begin("mikomo", "/accounts?a=1&b='2'"), "mikomo_1")
        page = browser.go(callback)
        assert (page.status_code, page.headers["refresh"]) == (200, "0; url=/accounts?a=1&b='2'")
        assert 'href="/accounts?a=1&amp;b=&#39;2&#39;"' in page.text
        assert "location" not in page.headers
        assert "SameSite=Strict" in page.headers["set-cookie"]
        assert page.headers["cache-control"] == "no-store"
        assert browser.fetch("/accounts").status_code == 200
        failed = browser.go(env.akoya.consent(browser.begin(), "mikomo_1").replace("code=", "code=x"))
        assert failed.headers["refresh"].startswith("0; url=/akoya/?error=")


class TestInChromium:
    pytestmark = IN_CHROMIUM

    async def test_browser_returns_with_its_session_and_gets_the_page_about_another_login(
        self, env: GatewayEnv, page: Page
    ) -> None:
        await page.goto(f"{env.url}/akoya/connect/mikomo")
        await log_in(page)
        await approve(page)
        await expect(page).to_have_url(f"{env.url}/accounts")
        await page.goto(f"{env.url}/akoya/connect/mikomo")
        await log_in(page, "mikomo_4")
        await approve(page)
        await expect(page.get_by_text("mikomo_1")).to_be_visible()
        await page.locator('button[value="end"], form:has(input[value="end"]) button').click()
        await expect(page).to_have_url(f"{env.url}/accounts")
        assert (
            len(
                (await (await page.request.get(f"{env.url}/akoya/", headers={"accept": "application/json"})).json())[
                    "connections"
                ]
            )
            == 1
        )
