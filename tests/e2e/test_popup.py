"""An app that opens the connect route in a popup, with the scripts of docs/popup.md, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.e2e.chromium import IN_CHROMIUM, approve, log_in
from tests.support.environment import GatewayEnv
from tests.support.markdown import ROOT, blocks
from tests.support.processes import AppServer

pytestmark = IN_CHROMIUM

IN_APP, AFTER = [block.text for block in blocks((ROOT / "docs" / "popup.md").read_text()) if block.language == "js"]


def page_with(body: str, script: str) -> Any:
    async def respond(request: Request) -> HTMLResponse:
        return HTMLResponse(f"<!doctype html><html lang=en><title>App</title>{body}<script>{script}</script></html>")

    return respond


APP = Starlette(
    routes=[
        Route("/", page_with("<button id=connect>Connect</button><output id=result></output>", IN_APP)),
        Route("/connected", page_with("<p>You can close this window.</p>", AFTER)),
    ]
)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    changes = {
        "redirects": {"after_error": "/connected", "allow": ["/accounts", "/connected"]},
        "access": [{"path": "/*", "require": "any", "otherwise": "pass"}],
    }
    with GatewayEnv(tmp_path_factory.mktemp("env"), upstream=AppServer(APP), changes=changes) as env:
        yield env


async def open_popup(env: GatewayEnv, page: Page) -> Page:
    """Press the app's button and go through the bank up to its last page."""
    await page.goto(env.url)
    async with page.expect_popup() as opening:
        await page.click("#connect")
    popup = await opening.value
    await log_in(popup)
    return popup


async def test_app_learns_that_the_popup_has_connected_a_bank(env: GatewayEnv, page: Page) -> None:
    popup = await open_popup(env, page)
    assert await popup.evaluate("window.opener") is None  # the bank's Cross-Origin-Opener-Policy
    await approve(popup)
    await expect(page.locator("#result")).to_have_text("connected", timeout=30_000)


async def test_app_learns_that_the_user_has_cancelled_in_the_popup(env: GatewayEnv, page: Page) -> None:
    popup = await open_popup(env, page)
    await popup.get_by_role("button", name=re.compile("cancel", re.I)).click()
    await expect(page.locator("#result")).to_have_text("access_denied", timeout=30_000)
