"""Every page that a person sees, in the demo and on a phone, by day and by night: judged by axe-core and by its width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from akoya_gateway.sandbox.demo import Demo
from tests.e2e.chromium import IN_CHROMIUM, approve, log_in

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(port=0) as demo:
        yield demo


@pytest.fixture
def context_options() -> dict[str, Any]:
    return {"viewport": {"width": 360, "height": 780}}


def judge(page: Page, title: str) -> None:
    """`title` shows that this is the page that was meant; waited for, since a click does not wait for what it brings."""
    expect(page).to_have_title(re.compile(re.escape(title)), timeout=15_000)
    page.wait_for_load_state()
    wide = page.evaluate(
        "[...document.querySelectorAll('body, body *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        " && !e.matches('.sr, input')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert not wide
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page)
        assert found.violations_count == 0, f"{title}, {scheme}: {found.generate_report()}"


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=re.compile(name, re.I)).first.click()


def test_from_the_app_through_the_bank_to_the_data(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    judge(page, "Demo App")
    page.get_by_role("link", name="Connect Mikomo Bank").click()
    page.get_by_label("User name").fill("mikomo_1")
    page.get_by_label("Password").fill("wrong")
    button(page, "Sign in")
    judge(page, "Sign in")
    assert page.evaluate("document.activeElement.id") == "password"
    page.get_by_label("Password").fill("mikomo_1")
    button(page, "Sign in")
    judge(page, "Terms")
    button(page, "Next")
    button(page, "Approve")
    assert page.get_by_role("alert").inner_text() == "Choose at least one account."
    judge(page, "Choose accounts")
    page.get_by_label("Everyday Checking").check()
    approve(page)
    judge(page, "Accounts")
    page.goto(f"{demo.url}/headers")
    judge(page, "Headers")
    page.goto(f"{demo.url}/nowhere")
    judge(page, "Page not found")


def test_the_connections_page_and_two_logins_at_one_bank(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/akoya/")
    judge(page, "Your bank connections")
    for user in ("mikomo_1", "mikomo_4"):
        page.wait_for_timeout(1100 if user == "mikomo_4" else 0)  # They are told apart by the second.
        page.goto(f"{demo.url}/akoya/connect/mikomo")
        log_in(page, user)
        approve(page)
    page.goto(f"{demo.url}/akoya/")
    judge(page, "Your bank connections")
    told = [row.inner_text() for row in page.get_by_role("listitem").all()]
    assert len(told) == len(set(told)) == 2, "a person must be able to tell them apart"
    button(page, "Disconnect")
    assert "disconnected" in page.get_by_role("status").inner_text()


@pytest.mark.parametrize(
    ("kind", "endpoint", "more", "told"),
    [
        ("status", "token", {}, "busy"),
        ("cut_after", "token", {}, "did not answer in time"),
        ("secret_rotated", "token", {}, "not possible right now"),
        ("bad_signature", "token", {}, "was not connected"),
        ("callback_error", "consent", {"error": "server_error"}, "The bank had a problem"),
        ("callback_error", "consent", {"error": "bank_says_no"}, "was not connected"),
    ],
)
def test_what_went_wrong_is_said_in_words(
    demo: Demo, page: Page, kind: str, endpoint: str, more: dict[str, str], told: str
) -> None:
    demo.sandbox.fault(kind, endpoint, times=1, **more)
    page.goto(f"{demo.url}/akoya/connect/mikomo")
    log_in(page)
    approve(page)
    assert told in page.get_by_role("status").inner_text()
    assert page.get_by_text("Not connected", exact=True).is_visible()


def test_cancelling_and_addresses_that_lead_nowhere(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/accounts")
    button(page, "Cancel")
    judge(page, "Connection Issue")
    button(page, "Cancel")
    judge(page, "Your bank connections")
    assert "Nothing was shared" in page.get_by_role("status").inner_text()
    for path, title in {
        "/akoya/callback?code=a&state=b": "This sign-in cannot be completed",
        "/akoya/connect/nobank": "Unknown bank",
        "/akoya/connect/mikomo?return_to=https://evil.example/": "That address cannot be returned to",
        "/a//b": "The address is not valid",
    }.items():
        page.goto(demo.url + path)
        assert page.title() == title
        assert page.get_by_role("link", name="Your bank connections").is_visible()
    judge(page, "The address is not valid")


def test_trouble_that_passes_can_be_tried_again_from_its_page(demo: Demo, page: Page) -> None:
    store = demo.config.parent / "grants.db"
    away = store.rename(store.with_suffix(".away"))
    try:
        page.goto(f"{demo.url}/akoya/connect/mikomo")
        judge(page, "The service is not available right now")
        assert page.get_by_text("Please try again in a moment.").is_visible()
        again = page.get_by_role("link", name="Try again")
        assert again.get_attribute("href") == "", "the address may hold a code: it is not for the page"
    finally:
        away.rename(store)
    again.click()
    page.wait_for_url(re.compile("/consent/"))


def test_the_emulators_own_pages(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.sandbox.url}/")
    judge(page, "Akoya emulator")
    page.goto(f"{demo.sandbox.url}/auth?connector=mikomo&client_id=nobody")
    judge(page, "Error 400")
