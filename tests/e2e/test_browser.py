"""A user's browser: headless Chromium, going through the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.e2e.chromium import IN_CHROMIUM, approve, disconnect, log_in, sign_out
from tests.support.environment import GatewayEnv

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint="middleware") as env:
        yield env


async def test_user_who_connects_a_bank_returns_to_the_original_page(env: GatewayEnv, page: Page) -> None:
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in await page.content()
    assert "valid: " in await page.content()


async def test_deep_link_with_what_browsers_send_raw_is_the_address_after_the_bank(env: GatewayEnv, page: Page) -> None:
    link = env.url + "/mikomo?panes={a:[1]}&q=x^y`z|\\w'#!/a[1]#{b}"
    await page.goto(link)
    await log_in(page)
    await approve(page)
    await page.wait_for_url(re.compile(re.escape(env.url) + r"/mikomo\?"))
    # The fragment is never sent, and browsers drop it across another site. They escape the apostrophe themselves.
    assert page.url == link.partition("#")[0].replace("'", "%27")
    connect = f"{env.url}/akoya/connect/mikomo?return_to={quote('/mikomo?a={b}#!/c[1]#{d}|e', safe='')}"
    await page.goto(connect)
    if not page.url.startswith(f"{env.url}/mikomo"):
        await log_in(page)
        await approve(page)
    await page.wait_for_url(re.compile(re.escape(env.url) + r"/mikomo\?a="))
    assert page.url == env.url + "/mikomo?a={b}#!/c[1]#{d}|e"


async def test_address_bar_and_history_contain_no_code(env: GatewayEnv, page: Page) -> None:
    seen: list[str] = []
    page.on("framenavigated", lambda frame: seen.append(frame.url))
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    assert not [url for url in seen if "code=" in url and url.startswith(env.url)]


async def test_referer_never_carries_the_callback(env: GatewayEnv, page: Page) -> None:
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    assert not [referer for referer in referers if "code=" in referer or "state=" in referer]


async def test_cancelling_shares_nothing_and_shows_a_message(env: GatewayEnv, page: Page) -> None:
    await page.goto(f"{env.url}/akoya/connect/mikomo")
    await log_in(page)
    await page.get_by_role("button", name=re.compile("cancel", re.I)).click()
    await page.wait_for_url(re.compile(re.escape(env.url) + "/akoya/.*"))
    await expect(page.get_by_role("status")).to_contain_text("Nothing was shared")
    await expect(page.get_by_text("Not connected").first).to_be_visible()


async def test_two_tabs_both_end_connected(env: GatewayEnv, context: BrowserContext) -> None:
    first, second = await context.new_page(), await context.new_page()
    await first.goto(f"{env.url}/akoya/connect/mikomo")
    await second.goto(f"{env.url}/akoya/connect/other")
    await log_in(second)
    await approve(second)
    await second.wait_for_url(f"{env.url}/accounts")
    await log_in(first)
    await approve(first)
    await first.wait_for_url(f"{env.url}/accounts")
    await first.goto(f"{env.url}/akoya/")
    await expect(first.get_by_text("Connected", exact=True)).to_have_count(2)


async def test_back_button_after_connecting_does_no_harm(env: GatewayEnv, page: Page) -> None:
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    await page.go_back()
    await page.goto(f"{env.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in await page.content()


async def test_after_logout_the_back_button_shows_nothing(env: GatewayEnv, page: Page) -> None:
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    await page.goto(f"{env.url}/akoya/")
    await sign_out(page)
    await page.wait_for_url(re.compile("done=signed-out"))
    await page.go_back()
    await page.wait_for_load_state()
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(0)
    await page.goto(f"{env.url}/accounts")
    await page.wait_for_url(re.compile(r"/akoya/\?return_to="))


async def test_disconnect_on_the_connections_page(env: GatewayEnv, page: Page) -> None:
    await page.goto(f"{env.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}/mikomo")
    await page.goto(f"{env.url}/akoya/")
    await disconnect(page)
    await expect(page.get_by_role("status")).to_contain_text("disconnected")
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(0)


async def test_gateway_pages_load_nothing_from_other_origins_and_violate_no_policy(env: GatewayEnv, page: Page) -> None:
    complaints: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(f"{env.url}/akoya/")
    assert [url for url in requested if not url.startswith(env.url)] == []
    assert [text for text in complaints if "Content Security Policy" in text or "violates" in text] == []


async def test_hostile_frame_shows_nothing(env: GatewayEnv, page: Page) -> None:
    await page.set_content(f'<iframe id="f" src="{env.url}/akoya/"></iframe>')
    [frame] = page.frames[1:]
    assert "Your bank connections" not in await frame.content()


async def test_error_page_at_the_callback_keeps_its_address_to_itself(env: GatewayEnv, page: Page) -> None:
    """The URL contains a code that was not used."""
    await page.goto(f"{env.url}/akoya/callback?code=a-code-of-somebody&state=an-unknown-state")
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    await page.get_by_role("link", name="Your bank connections").click()
    await page.wait_for_url(f"{env.url}/akoya/")
    assert referers
    assert not any(referers)
