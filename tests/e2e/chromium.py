"""What a user does in a real browser, and the check that one is installed. The browser fixture is in conftest.py.

This module uses Playwright's asynchronous API: the synchronous one runs on greenlets, which are not allowed in a traced
process (tests/conftest.py).
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable
from typing import Self

import pytest
from playwright.async_api import Page, Playwright, async_playwright

from tests.support.shutdown import children, kill

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
"""The first of these that is installed: the tests take half the CPU time in the headless shell."""

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-sandbox"]  # fmt: skip

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium-headless-shell)"
    ),
]
"""The `pytestmark` of a module of browser tests."""

WITHIN = 20.0
"""Seconds that the browser has to close."""


class Driver:
    """Playwright's driver process, which starts the browser and talks to it.

    Playwright has no timeout for closing a browser, so it would wait forever for one that does not respond.
    """

    def __init__(self, playwright: Playwright, pids: set[int]) -> None:
        self.playwright = playwright
        self._pids = pids

    @classmethod
    async def start(cls) -> Self:
        before = children()
        playwright = await async_playwright().start()
        return cls(playwright, children() - before)

    async def stop(self) -> None:
        await self.end(self.playwright.stop())

    async def end(self, closing: Awaitable[None]) -> None:
        """Wait for `closing`. After WITHIN seconds, kill the driver and its descendants and raise TimeoutError."""
        try:
            async with asyncio.timeout(WITHIN):
                await closing
        except TimeoutError:
            kill(self._pids.union(*map(children, self._pids)))
            raise


async def log_in(page: Page, user: str = "mikomo_1") -> None:
    """Go through the bank's login, the terms and the account selection, up to the last button."""
    await page.locator("input[type=text]").fill(user)
    await page.locator("input[type=password]").fill(user)
    await page.get_by_role("button", name=re.compile("sign in", re.I)).click()
    await page.get_by_role("button", name=re.compile("next", re.I)).click()
    accounts = page.locator('input[name="account"]')
    await accounts.first.wait_for()  # `all` does not wait
    for box in await accounts.all():
        await box.check()


async def approve(page: Page) -> None:
    await page.get_by_role("button", name=re.compile("approve", re.I)).click()


async def disconnect(page: Page) -> None:
    """Disconnect the first bank of the connections page: the gateway asks once."""
    await page.get_by_role("link", name="Disconnect", exact=True).first.click()
    await page.get_by_role("button", name="Disconnect", exact=True).click()


async def ask_to_sign_out(page: Page) -> None:
    """Go from the connections page to the page that asks whether to sign out and disconnect all banks."""
    await page.get_by_role("link", name="Sign out and disconnect all banks").click()
    await page.get_by_role("heading", name="Sign out and disconnect all banks?").wait_for()


async def sign_out(page: Page) -> None:
    await ask_to_sign_out(page)
    await page.get_by_role("button", name="Sign out and disconnect").click()
