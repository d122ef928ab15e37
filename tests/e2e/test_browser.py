"""A user's browser: headless Chromium, going through the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.e2e.chromium import IN_CHROMIUM, approve, log_in
from tests.support.environment import World

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), face="middleware") as world:
        yield world


async def test_a_person_connects_a_bank_and_lands_where_they_were(world: World, page: Page) -> None:
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in await page.content()
    assert "valid: " in await page.content()


async def test_a_deep_link_with_what_browsers_send_raw_is_the_address_after_the_bank(world: World, page: Page) -> None:
    link = world.url + "/mikomo?panes={a:[1]}&q=x^y`z|\\w'#!/a[1]#{b}"
    await page.goto(link)
    await log_in(page)
    await approve(page)
    await page.wait_for_url(re.compile(re.escape(world.url) + r"/mikomo\?"))
    # The fragment is never sent, and browsers drop it across another site. They escape the apostrophe themselves.
    assert page.url == link.partition("#")[0].replace("'", "%27")
    connect = f"{world.url}/akoya/connect/mikomo?return_to={quote('/mikomo?a={b}#!/c[1]#{d}|e', safe='')}"
    await page.goto(connect)
    if not page.url.startswith(f"{world.url}/mikomo"):
        await log_in(page)
        await approve(page)
    await page.wait_for_url(re.compile(re.escape(world.url) + r"/mikomo\?a="))
    assert page.url == world.url + "/mikomo?a={b}#!/c[1]#{d}|e"


async def test_the_address_bar_and_the_history_hold_no_code(world: World, page: Page) -> None:
    seen: list[str] = []
    page.on("framenavigated", lambda frame: seen.append(frame.url))
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    assert not [url for url in seen if "code=" in url and url.startswith(world.url)]


async def test_the_referer_never_carries_the_callback(world: World, page: Page) -> None:
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    assert not [referer for referer in referers if "code=" in referer or "state=" in referer]


async def test_cancelling_shares_nothing_and_says_so(world: World, page: Page) -> None:
    await page.goto(f"{world.url}/akoya/connect/mikomo")
    await log_in(page)
    await page.get_by_role("button", name=re.compile("cancel", re.I)).click()
    await page.wait_for_url(re.compile(re.escape(world.url) + "/akoya/.*"))
    await expect(page.get_by_role("status")).to_contain_text("Nothing was shared")
    await expect(page.get_by_text("Not connected").first).to_be_visible()


async def test_two_tabs_both_end_connected(world: World, context: BrowserContext) -> None:
    first, second = await context.new_page(), await context.new_page()
    await first.goto(f"{world.url}/akoya/connect/mikomo")
    await second.goto(f"{world.url}/akoya/connect/other")
    await log_in(second)
    await approve(second)
    await second.wait_for_url(f"{world.url}/accounts")
    await log_in(first)
    await approve(first)
    await first.wait_for_url(f"{world.url}/accounts")
    await first.goto(f"{world.url}/akoya/")
    await expect(first.get_by_text("Connected", exact=True)).to_have_count(2)


async def test_the_back_button_after_connecting_does_no_harm(world: World, page: Page) -> None:
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    await page.go_back()
    await page.goto(f"{world.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in await page.content()


async def test_after_logout_the_back_button_shows_nothing(world: World, page: Page) -> None:
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    await page.goto(f"{world.url}/akoya/")
    await page.get_by_role("button", name=re.compile("sign out", re.I)).click()
    await page.wait_for_url(re.compile("done=signed-out"))
    await page.go_back()
    await page.wait_for_load_state()
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(0)
    await page.goto(f"{world.url}/accounts")
    await page.wait_for_url(re.compile(r"/akoya/\?return_to="))


async def test_disconnect_on_the_connections_page(world: World, page: Page) -> None:
    await page.goto(f"{world.url}/mikomo")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{world.url}/mikomo")
    await page.goto(f"{world.url}/akoya/")
    await page.get_by_role("button", name="Disconnect", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("disconnected")
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(0)


async def test_our_pages_load_nothing_from_anywhere_and_break_no_policy(world: World, page: Page) -> None:
    complaints: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(f"{world.url}/akoya/")
    assert [url for url in requested if not url.startswith(world.url)] == []
    assert [text for text in complaints if "Content Security Policy" in text or "violates" in text] == []


async def test_a_hostile_frame_shows_nothing(world: World, page: Page) -> None:
    await page.set_content(f'<iframe id="f" src="{world.url}/akoya/"></iframe>')
    [frame] = page.frames[1:]
    assert "Your bank connections" not in await frame.content()


async def test_an_error_page_at_the_callback_keeps_its_address_to_itself(world: World, page: Page) -> None:
    """The URL contains a code that was not used."""
    await page.goto(f"{world.url}/akoya/callback?code=a-code-of-somebody&state=an-unknown-state")
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    await page.get_by_role("link", name="Your bank connections").click()
    await page.wait_for_url(f"{world.url}/akoya/")
    assert referers
    assert not any(referers)
