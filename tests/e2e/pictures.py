"""Takes the screenshots in docs/: `python -m tests.e2e.pictures docs` (scripts/pictures)."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from akoya_gateway.sandbox.demo import Demo
from akoya_gateway.sandbox.settings import SandboxConnector, SandboxSettings
from tests.e2e.chromium import CHROMIUM, QUIET, approve, log_in
from tests.support.environment import GatewayEnv

BANKS = SandboxSettings(connectors=(SandboxConnector(), SandboxConnector("alpine", "Alpine Savings")))
LANGUAGES = {"English": "en-US", "Spanish": "es-US"}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTH = 360
LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect width="40" height="40" rx="9" fill="#0a6847"/>
<path d="M10 28V18m7 10V12m7 16v-8m7 8V15" stroke="#fff" stroke-width="4" stroke-linecap="round"/></svg>"""
CLIENT = {"client": "test-app"}
SETTINGS: dict[str, Any] = {
    "pages": {
        "app_name": "Example Budget",
        "logo": "logo.svg",
        "colors": {"accent": "#0a6847"},
        "links": {"help": "/help", "privacy": "/privacy", "terms": "/terms"},
    },
    "connectors": {
        "mikomo": {**CLIENT, "name": "Mikomo Bank", "other_login": "ask"},
        "other": {**CLIENT, "name": "Alpine Savings"},
    },
}


async def take_demo(browser: Browser, url: str, folder: Path) -> None:
    """Take the pictures of the README and the tutorial: the way from the bank to the app."""
    page = await browser.new_page(viewport={"width": 720, "height": 720}, color_scheme="light", locale="en-US")

    async def picture(name: str) -> None:
        await page.mouse.move(0, 0)
        await page.evaluate("document.activeElement.blur()")
        save(await page.screenshot(), folder / f"{name}.png")

    await page.goto(f"{url}/akoya/connect/mikomo?return_to=/accounts")
    await log_in(page)
    await picture("consent")
    await approve(page)
    await page.get_by_role("rowheader").first.wait_for()
    await picture("accounts")
    await page.goto(f"{url}/akoya/")
    await picture("connections")


async def visit(page: Page, url: str) -> AsyncIterator[str]:
    """Go through the gateway's pages, and yield the name of each when it is shown."""
    await page.goto(f"{url}/akoya/connect/mikomo")
    await log_in(page, "mikomo_1")
    await approve(page)
    await page.wait_for_url(f"{url}/accounts")
    await page.goto(f"{url}/akoya/connect/mikomo")
    await log_in(page, "mikomo_4")
    await approve(page)
    await page.wait_for_url("**/other-login/**")
    yield "other-login"
    await page.locator("button").first.click()
    await page.wait_for_url(f"{url}/accounts")
    await page.goto(f"{url}/akoya/")
    yield "connections"
    await page.goto(f"{url}/akoya/disconnect/mikomo")
    yield "disconnect"
    await page.goto(f"{url}/akoya/logout")
    yield "logout"
    await page.goto(f"{url}/akoya/callback?code=a&state=b")
    yield "problem"


async def take_pages(browser: Browser, url: str, folder: Path) -> None:
    """Take one picture of each page, with both languages in both color schemes side by side."""
    shots: dict[str, list[str]] = {}
    for locale in LANGUAGES.values():
        page = await browser.new_page(viewport={"width": WIDTH, "height": 400}, locale=locale)
        async for name in visit(page, url):
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                shot = await page.screenshot(full_page=True)
                shots.setdefault(name, []).append(base64.b64encode(shot).decode())
    sheet = await browser.new_page(viewport={"width": 4 * WIDTH + 3 * 16, "height": 400})
    for name, images in shots.items():
        cells = "".join(f'<img src="data:image/png;base64,{image}">' for image in images)
        style = "body { margin: 0; display: flex; gap: 16px; align-items: start }"
        await sheet.set_content(f"<style>{style}</style>{cells}")
        save(await sheet.screenshot(full_page=True), folder / f"{name}.png")


def save(shot: bytes, file: Path) -> None:
    """Write a screenshot with a palette of 64 colors: a quarter of its size, and no difference that one could see."""
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)


async def take(folder: Path) -> None:
    (folder / "pages").mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        with Demo(port=0, settings=BANKS) as demo:
            await take_demo(browser, demo.url, folder)
        with tempfile.TemporaryDirectory() as work:
            (Path(work) / "logo.svg").write_text(LOGO)
            with GatewayEnv(Path(work), changes=SETTINGS) as env:
                await take_pages(browser, env.url, folder / "pages")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
