"""Every page that a user sees, on desktop and phone, in light and dark mode: checked with axe-core and for width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from akoya_gateway.sandbox.demo import Demo
from tests.e2e.chromium import IN_CHROMIUM, approve, ask_to_sign_out, disconnect, log_in

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(port=0) as demo:
        yield demo


@pytest.fixture
def context_options() -> dict[str, Any]:
    return {"viewport": {"width": 360, "height": 780}}


async def judge(page: Page, title: str) -> None:
    """Check the page. Wait for `title`, which identifies it, because a click does not wait for the navigation."""
    await expect(page).to_have_title(re.compile(re.escape(title)), timeout=15_000)
    await page.wait_for_load_state()
    wide = await page.evaluate(
        "[...document.querySelectorAll('body, body *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        " && !e.matches('.sr, input')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert not wide
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        await page.emulate_media(color_scheme=scheme)
        found = await Axe().run(page)
        assert found.violations_count == 0, f"{title}, {scheme}: {found.generate_report()}"


async def button(page: Page, name: str) -> None:
    await page.get_by_role("button", name=re.compile(name, re.I)).first.click()


async def test_from_the_app_through_the_bank_to_the_data(demo: Demo, page: Page) -> None:
    await page.goto(demo.url)
    await judge(page, "Demo App")
    await page.get_by_role("link", name="Connect Mikomo Bank").click()
    await page.get_by_label("User name").fill("mikomo_1")
    await page.get_by_label("Password").fill("wrong")
    await button(page, "Sign in")
    await judge(page, "Sign in")
    assert await page.evaluate("document.activeElement.id") == "password"
    await page.get_by_label("Password").fill("mikomo_1")
    await button(page, "Sign in")
    await judge(page, "Terms")
    await button(page, "Next")
    await button(page, "Approve")
    assert await page.get_by_role("alert").inner_text() == "Choose at least one account."
    await judge(page, "Choose accounts")
    await page.get_by_label("Everyday Checking").check()
    await approve(page)
    await judge(page, "Accounts")
    await page.goto(f"{demo.url}/headers")
    await judge(page, "Headers")
    await page.goto(f"{demo.url}/nowhere")
    await judge(page, "Page not found")


async def test_the_connections_page_and_two_logins_at_one_bank(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.url}/akoya/")
    await judge(page, "Your bank connections")
    for user in ("mikomo_1", "mikomo_4"):
        await page.goto(f"{demo.url}/akoya/connect/mikomo")
        await log_in(page, user)
        await approve(page)
        await page.wait_for_url(f"{demo.url}/accounts")
    await page.goto(f"{demo.url}/akoya/")
    await judge(page, "Your bank connections")
    told = [await row.inner_text() for row in await page.get_by_role("listitem").all()]
    assert len(told) == len(set(told)) == 2, "a user must be able to tell them apart"
    await page.get_by_text("Rename").first.click()
    await page.get_by_label("Name of this login").first.fill("Savings and business")
    await judge(page, "Your bank connections")
    await button(page, "Save")
    await expect(page.get_by_role("status")).to_contain_text("new name", timeout=30_000)
    assert "Savings and business" in await page.get_by_role("listitem").first.inner_text()
    await page.get_by_role("link", name="Disconnect", exact=True).first.click()
    await judge(page, "Disconnect Mikomo Bank?")
    assert "Savings and business" in await page.get_by_role("main").inner_text()
    await page.get_by_role("link", name="Keep the connection").click()
    await expect(page.get_by_role("link", name="Disconnect", exact=True)).to_have_count(2, timeout=30_000)
    await disconnect(page)
    await expect(page.get_by_role("status")).to_contain_text("disconnected", timeout=30_000)
    await ask_to_sign_out(page)
    await judge(page, "Sign out and disconnect all banks?")
    await page.get_by_role("link", name="Stay signed in").click()
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(1, timeout=30_000)


@pytest.mark.parametrize(
    ("kind", "endpoint", "more", "told"),
    [
        ("status", "token", {}, "busy"),
        ("cut_after", "token", {}, "did not answer in time"),
        ("secret_rotated", "token", {}, "not possible right now"),
        ("bad_signature", "token", {}, "was not connected"),
        ("callback_error", "consent", {"error": "server_error"}, "could not complete the sign-in"),
        ("callback_error", "consent", {"error": "bank_says_no"}, "was not connected"),
    ],
)
async def test_what_went_wrong_is_said_in_words(
    demo: Demo, page: Page, kind: str, endpoint: str, more: dict[str, str], told: str
) -> None:
    demo.sandbox.fault(kind, endpoint, times=1, **more)
    await page.goto(f"{demo.url}/akoya/connect/mikomo")
    await log_in(page)
    await approve(page)
    assert told in await page.get_by_role("status").inner_text()
    assert await page.get_by_text("Not connected", exact=True).is_visible()


async def test_cancelling_and_addresses_that_lead_nowhere(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.url}/accounts")
    await button(page, "Cancel")
    await judge(page, "Connection Issue")
    await button(page, "Cancel")
    await judge(page, "Your bank connections")
    assert "Nothing was shared" in await page.get_by_role("status").inner_text()
    for path, title in {
        "/akoya/callback?code=a&state=b": "This sign-in cannot be completed",
        "/akoya/connect/nobank": "Unknown bank",
        "/akoya/connect/mikomo?return_to=https://evil.example/": "This link does not work",
        "/a//b": "This link does not work",
    }.items():
        await page.goto(demo.url + path)
        assert await page.title() == title
        assert await page.get_by_role("link", name="Your bank connections").is_visible()
        assert await page.get_by_role("link", name="Back to the app").is_visible()
    await judge(page, "This link does not work")


async def test_trouble_that_passes_can_be_tried_again_from_its_page(demo: Demo, page: Page) -> None:
    store = demo.config.parent / "grants.db"
    away = store.rename(store.with_suffix(".away"))
    try:
        await page.goto(f"{demo.url}/akoya/connect/mikomo")
        await judge(page, "The service is not available right now")
        assert await page.get_by_text("Please try again in a moment.").is_visible()
        again = page.get_by_role("link", name="Try again")
        assert await again.get_attribute("href") == "", "the address may contain a code, which the page must not show"
    finally:
        away.rename(store)
    await again.click()
    await page.wait_for_url(re.compile("/consent/"))


async def test_the_emulators_own_pages(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.sandbox.url}/")
    await judge(page, "Akoya emulator")
    await page.goto(f"{demo.sandbox.url}/auth?connector=mikomo&client_id=nobody")
    await judge(page, "Error 400")
