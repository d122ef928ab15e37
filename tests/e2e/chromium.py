"""What a person does in a browser, and whether there is one. The browser itself is a fixture of conftest.py."""

from __future__ import annotations

import re
import shutil

import pytest
from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-sandbox"]  # fmt: skip

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
"""The `pytestmark` of a module of browser tests."""


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
