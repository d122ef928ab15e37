"""Every page that a user sees, on desktop and phone, in light and dark mode: checked with axe-core and for width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, Route, expect

from akoya_gateway.responses.languages import LANGUAGES
from akoya_gateway.responses.page_samples import SAMPLES
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.response import Response
from akoya_gateway.sandbox.demo import Demo
from tests.e2e.chromium import IN_CHROMIUM, approve, ask_to_sign_out, disconnect, log_in
from tests.support.config_documents import validated

pytestmark = IN_CHROMIUM

FULLEST = dict(SAMPLES)
"""The last sample of each page, which shows the most."""

LOGO = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><style>rect { fill: green }</style><rect width="40" height="40"/></svg>'
BRANDED = {
    "app_name": "Example Household Budget",
    "logo": "logo.svg",
    "colors": {"accent": "#0a6847"},
    "links": {"help": "/help", "privacy": "https://www.example.com/privacy", "terms": "/terms"},
}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(port=0) as demo:
        yield demo


@pytest.fixture
def context_options() -> dict[str, Any]:
    return {"viewport": {"width": 360, "height": 780}}


async def check_page(page: Page, title: str) -> None:
    """Check the page. Wait for `title`, which identifies it, because a click does not wait for the navigation."""
    await expect(page).to_have_title(re.compile(re.escape(title)), timeout=15_000)
    await page.wait_for_load_state()
    wide = await page.evaluate(
        "[...document.querySelectorAll('body, body *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        " && !e.matches('.sr, input')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert not wide
    await check_accessibility(page, title)


async def check_accessibility(page: Page, where: str) -> None:
    """Check with axe-core. The dark scheme changes only colours, so only the contrast is checked in it."""
    await page.emulate_media(color_scheme="light")
    found = await Axe().run(page)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate("axe.run({runOnly: ['color-contrast']})")
    assert dark["passes"], "axe found text"
    assert dark["violations"] == [], f"{where}, dark"


async def button(page: Page, name: str) -> None:
    await page.get_by_role("button", name=re.compile(name, re.I)).first.click()


async def test_from_the_app_through_the_bank_to_the_data(demo: Demo, page: Page) -> None:
    await page.goto(demo.url)
    await check_page(page, "Demo App")
    tops = await page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getBoundingClientRect().top)")
    assert len(set(tops)) == 1, "the menu is one line on a phone"
    await page.get_by_role("link", name="Connect Mikomo Bank").click()
    await page.get_by_label("User name").fill("mikomo_1")
    await page.get_by_label("Password").fill("wrong")
    await button(page, "Sign in")
    await check_page(page, "Sign in")
    assert await page.evaluate("document.activeElement.id") == "password"
    await page.get_by_label("Password").fill("mikomo_1")
    await button(page, "Sign in")
    await check_page(page, "Terms")
    await button(page, "Next")
    await button(page, "Approve")
    assert await page.get_by_role("alert").inner_text() == "Choose at least one account."
    await check_page(page, "Choose accounts")
    await page.get_by_label("Everyday Checking").check()
    await approve(page)
    await expect(page.get_by_role("rowheader", name="Everyday Checking")).to_be_visible(timeout=30_000)
    await check_page(page, "Accounts")
    await page.goto(f"{demo.url}/headers")
    await check_page(page, "Headers")
    await page.goto(f"{demo.url}/nowhere")
    await check_page(page, "Page not found")


async def test_connections_page_and_two_logins_at_one_bank(demo: Demo, page: Page) -> None:
    for user in ("mikomo_1", "mikomo_4"):
        await page.goto(f"{demo.url}/akoya/connect/mikomo")
        await log_in(page, user)
        await approve(page)
        await page.wait_for_url(f"{demo.url}/accounts")
    await page.goto(f"{demo.url}/akoya/")
    labels = [await row.inner_text() for row in await page.get_by_role("listitem").all()]
    assert len(labels) == len(set(labels)) == 2, "a user must be able to tell them apart"
    await page.get_by_text("Rename").first.click()
    await page.get_by_label("Name of this login").first.fill("Savings and business")
    await check_page(page, "Your bank connections")
    await button(page, "Save")
    await expect(page.get_by_role("status")).to_contain_text("renamed", timeout=30_000)
    assert "Savings and business" in await page.get_by_role("listitem").first.inner_text()
    await page.get_by_role("link", name="Disconnect", exact=True).first.click()
    await expect(page).to_have_title("Disconnect Mikomo Bank?", timeout=15_000)
    assert "Savings and business" in await page.get_by_role("main").inner_text()
    await page.get_by_role("link", name="Keep the connection").click()
    await expect(page.get_by_role("link", name="Disconnect", exact=True)).to_have_count(2, timeout=30_000)
    await disconnect(page)
    await expect(page.get_by_role("status")).to_contain_text("disconnected", timeout=30_000)
    await ask_to_sign_out(page)
    await page.get_by_role("link", name="Stay signed in").click()
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(1, timeout=30_000)


@pytest.mark.parametrize(
    ("kind", "endpoint", "more", "labels"),
    [
        ("status", "token", {}, "busy"),
        ("cut_after", "token", {}, "did not respond in time"),
        ("secret_rotated", "token", {}, "not possible right now"),
        ("bad_signature", "token", {}, "was not connected"),
        ("callback_error", "consent", {"error": "server_error"}, "could not complete the sign-in"),
        ("callback_error", "consent", {"error": "bank_says_no"}, "was not connected"),
    ],
)
async def test_error_page_explains_the_error(
    demo: Demo, page: Page, kind: str, endpoint: str, more: dict[str, str], labels: str
) -> None:
    demo.sandbox.fault(kind, endpoint, times=1, **more)
    await page.goto(f"{demo.url}/akoya/connect/mikomo")
    await log_in(page)
    await approve(page)
    assert labels in await page.get_by_role("status").inner_text()
    assert await page.get_by_text("Not connected", exact=True).is_visible()


async def test_cancelling_and_addresses_that_lead_nowhere(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.url}/accounts")
    await button(page, "Cancel")
    await check_page(page, "Connection Issue")
    await button(page, "Cancel")
    await check_page(page, "Your bank connections")
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


async def test_temporary_error_can_be_retried_from_its_page(demo: Demo, page: Page) -> None:
    store = demo.config.parent / "grants.db"
    away = store.rename(store.with_suffix(".away"))
    try:
        await page.goto(f"{demo.url}/akoya/connect/mikomo")
        await expect(page).to_have_title("The service is not available right now", timeout=15_000)
        assert await page.get_by_text("Please try again in a moment.").is_visible()
        again = page.get_by_role("link", name="Try again")
        assert await again.get_attribute("href") == "", "the address may contain a code, which the page must not show"
    finally:
        away.rename(store)
    await again.click()
    await page.wait_for_url(re.compile("/consent/"))


async def test_emulators_own_pages(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.sandbox.url}/")
    await check_page(page, "Akoya emulator")
    await page.goto(f"{demo.sandbox.url}/auth?connector=mikomo&client_id=nobody")
    await check_page(page, "Error 400")


def pages_of(folder: Path, settings: dict[str, Any]) -> Pages:
    (folder / "logo.svg").write_text(LOGO)
    result = validated(folder, {"pages": settings})
    assert result.config is not None, result.diagnostics
    assert not [warning for warning in result.warnings if warning.location.startswith("pages")]
    return Pages(result.config)


async def test_every_page_is_accessible_and_fits_a_phone_in_every_language_and_scheme(
    page: Page, tmp_path: Path
) -> None:
    plain, branded = pages_of(tmp_path, {}), pages_of(tmp_path, BRANDED)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    shown: dict[str, Response] = {}

    async def serve(route: Route) -> None:
        response = shown["now"]
        headers = {name.decode(): value.decode() for name, value in response.raw_headers}
        await route.fulfill(status=200, headers=headers, body=bytes(response.body))

    await page.route("https://app.example.com/**", serve)
    for number, (name, sample) in enumerate(FULLEST.items()):
        for tag in LANGUAGES:
            # The pages with and without the operator's settings in turn: axe takes half a second for each.
            pages = (plain, branded)[(number + LANGUAGES.index(tag)) % 2]
            shown["now"] = pages.localized(tag.encode()).render(name, 200, **sample)
            where = f"{name} {number} in {tag}"
            await page.goto(f"https://app.example.com/{number}/{tag}")
            assert await page.evaluate("document.documentElement.lang") == tag
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 360, where
            assert await page.evaluate("[...document.images].every(image => image.naturalWidth > 0)"), where
            await check_accessibility(page, where)
    assert not [text for text in complaints if "content security policy" in text.lower()]
