"""What a person does in a browser, and whether there is one. The browser itself is a fixture of conftest.py."""

from __future__ import annotations

import re
import shutil
from contextlib import AbstractContextManager
from typing import Self

import pytest
from playwright.sync_api import Page, Playwright, sync_playwright

from tests.ending import children, kill, unless_done

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-sandbox"]  # fmt: skip

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
"""The `pytestmark` of a module of browser tests."""


class Driver:
    """Playwright's process, which starts the browser and talks to it. Nothing that it is asked to end has a time of its
    own there: a browser that does not answer would be waited for without end."""

    def __init__(self) -> None:
        before = children()
        self.playwright: Playwright = sync_playwright().start()
        self._pids = children() - before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.asked_to_end():
            self.playwright.stop()

    def asked_to_end(self) -> AbstractContextManager[None]:
        """In time, or the driver and all that it has started are killed, and what was asked for is an error."""
        return unless_done(self._kill, 20)

    def _kill(self) -> None:
        kill(self._pids.union(*map(children, self._pids)))


def log_in(page: Page, user: str = "mikomo_1") -> None:
    """The bank's login, the terms and the choice of accounts, up to the last button."""
    page.locator("input[type=text]").fill(user)
    page.locator("input[type=password]").fill(user)
    page.get_by_role("button", name=re.compile("sign in", re.I)).click()
    page.get_by_role("button", name=re.compile("next", re.I)).click()
    for box in page.locator('input[name="account"]').all():
        box.check()


def approve(page: Page) -> None:
    page.get_by_role("button", name=re.compile("approve", re.I)).click()
