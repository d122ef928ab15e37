"""A person's browser: Chromium, headless, walking the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.chromium import IN_CHROMIUM, approve, log_in
from tests.e2e.world import World

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), face="middleware") as world:
        yield world


def test_a_person_connects_a_bank_and_lands_where_they_were(world: World, page: Page) -> None:
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in page.content()
    assert "valid: " in page.content()


def test_the_address_bar_and_the_history_hold_no_code(world: World, page: Page) -> None:
    seen: list[str] = []
    page.on("framenavigated", lambda frame: seen.append(frame.url))
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    assert not [url for url in seen if "code=" in url and url.startswith(world.url)]


def test_the_referer_never_carries_the_callback(world: World, page: Page) -> None:
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    assert not [referer for referer in referers if "code=" in referer or "state=" in referer]


def test_cancelling_shares_nothing_and_says_so(world: World, page: Page) -> None:
    page.goto(f"{world.url}/akoya/connect/mikomo")
    log_in(page)
    page.get_by_role("button", name=re.compile("cancel", re.I)).click()
    page.wait_for_url(re.compile(re.escape(world.url) + "/akoya/.*"))
    expect(page.get_by_role("status")).to_contain_text("Nothing was shared")
    expect(page.get_by_text("Not connected").first).to_be_visible()


def test_two_tabs_both_end_connected(world: World, context: BrowserContext) -> None:
    first, second = context.new_page(), context.new_page()
    first.goto(f"{world.url}/akoya/connect/mikomo")
    second.goto(f"{world.url}/akoya/connect/other")
    log_in(second)
    approve(second)
    second.wait_for_url(f"{world.url}/accounts")
    log_in(first)
    approve(first)
    first.wait_for_url(f"{world.url}/accounts")
    first.goto(f"{world.url}/akoya/")
    expect(first.get_by_text("Connected", exact=True)).to_have_count(2)


def test_the_back_button_after_connecting_does_no_harm(world: World, page: Page) -> None:
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    page.go_back()
    page.goto(f"{world.url}/mikomo")
    assert '"akoya-connector", "mikomo"' in page.content()


def test_after_logout_the_back_button_shows_nothing(world: World, page: Page) -> None:
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    page.goto(f"{world.url}/akoya/")
    page.get_by_role("button", name=re.compile("sign out", re.I)).click()
    page.wait_for_url(re.compile("done=signed-out"))
    page.go_back()
    page.wait_for_load_state()
    expect(page.get_by_text("Connected", exact=True)).to_have_count(0)
    page.goto(f"{world.url}/accounts")
    page.wait_for_url(re.compile(r"/akoya/\?return_to="))


def test_disconnect_on_the_connections_page(world: World, page: Page) -> None:
    page.goto(f"{world.url}/mikomo")
    log_in(page)
    approve(page)
    page.wait_for_url(f"{world.url}/mikomo")
    page.goto(f"{world.url}/akoya/")
    page.get_by_role("button", name="Disconnect", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("disconnected")
    expect(page.get_by_text("Connected", exact=True)).to_have_count(0)


def test_our_pages_load_nothing_from_anywhere_and_break_no_policy(world: World, page: Page) -> None:
    complaints: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{world.url}/akoya/")
    assert [url for url in requested if not url.startswith(world.url)] == []
    assert [text for text in complaints if "Content Security Policy" in text or "violates" in text] == []


def test_a_hostile_frame_shows_nothing(world: World, page: Page) -> None:
    page.set_content(f'<iframe id="f" src="{world.url}/akoya/"></iframe>')
    page.wait_for_timeout(500)
    frame = page.frames[-1]
    assert "Your bank connections" not in (frame.content() if frame != page.main_frame else "")


def test_an_error_page_at_the_callback_keeps_its_address_to_itself(world: World, page: Page) -> None:
    """The address holds a code that was not used."""
    page.goto(f"{world.url}/akoya/callback?code=a-code-of-somebody&state=an-unknown-state")
    referers: list[str] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer", "")))
    page.get_by_role("link", name="Your bank connections").click()
    page.wait_for_url(f"{world.url}/akoya/")
    assert referers
    assert not any(referers)
