from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, Page

from tests.e2e.chromium import CHROMIUM, QUIET, Driver
from tests.support.environment import Browser, GatewayEnv


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    """One environment for the tests of a module; each test gets its own browser. All tests run with both entry points."""
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint=request.param) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# Playwright's objects belong to one event loop: that of the module. The tests marked IN_CHROMIUM run in it too.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver() -> AsyncIterator[Driver]:
    driver = await Driver.start()
    yield driver
    await driver.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(driver: Driver) -> AsyncIterator[Chromium]:
    browser = await driver.playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
    yield browser
    await driver.end(browser.close())


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of a module's browser contexts. Modules override this fixture."""
    return {}


@pytest_asyncio.fixture(loop_scope="module")
async def context(driver: Driver, chromium: Chromium, context_options: dict[str, Any]) -> AsyncIterator[BrowserContext]:
    context = await chromium.new_context(**context_options)
    context.set_default_timeout(15_000)
    yield context
    await driver.end(context.close())


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()
