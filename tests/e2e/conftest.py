from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, Page

from tests.e2e.chromium import CHROMIUM, QUIET, Driver
from tests.e2e.world import Browser, World


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for a module's tests; each test gets a browser of its own. Whatever holds for one face holds for
    the other."""
    with World(tmp_path_factory.mktemp("world"), face=request.param) as world:
        yield world


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    with world.browser() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    """A module's own: playwright's event loop would be in the way of asyncio tests in between."""
    with Driver() as driver:
        yield driver


@pytest.fixture(scope="module")
def chromium(driver: Driver) -> Iterator[Chromium]:
    browser = driver.playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
    yield browser
    with driver.asked_to_end():
        browser.close()


@pytest.fixture
def context_options() -> dict[str, Any]:
    """What a module's browser contexts have of their own; overridden there."""
    return {}


@pytest.fixture
def context(driver: Driver, chromium: Chromium, context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    context = chromium.new_context(**context_options)
    context.set_default_timeout(15_000)
    yield context
    with driver.asked_to_end():
        context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
