"""Attacks by a hostile page, risks of a shared computer, and unusual deployments, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from playwright._impl._api_structures import SetCookieParam
from playwright.async_api import BrowserContext, Page, expect

from tests.e2e.chromium import IN_CHROMIUM, approve, ask_to_sign_out, disconnect, log_in
from tests.support.environment import GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import AppServer
from tests.support.tls_terminator import TLSTerminator
from tests.support.waiting import until

pytestmark = IN_CHROMIUM


class TLSEnv(GatewayEnv):
    """`url` is the https origin of the TLS terminator; the gateway itself speaks http behind it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.front_port = free_port()
        super().__init__(folder, changes={"prefix": "/bank-links", **options.pop("changes", {})}, **options)
        self.url = f"https://127.0.0.1:{self.front_port}"
        self.redirect_uri = f"{self.url}/banks/back"
        self.terminator = TLSTerminator(folder, self.port, self.front_port)

    def __enter__(self) -> Self:
        super().__enter__()
        self.akoya.register_redirect_uri(self.redirect_uri)
        self.terminator.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminator.__exit__()
        super().__exit__()


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env")) as env:
        yield env


@pytest.fixture(scope="module")
def tls_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with TLSEnv(tmp_path_factory.mktemp("tls"), changes={"trusted_proxies": ["127.0.0.1"]}) as env:
        yield env


@pytest.fixture
def context_options() -> dict[str, Any]:
    return {"ignore_https_errors": True}


@pytest.fixture(scope="module")
def hostile_site() -> Iterator[str]:
    """Another site (`localhost` is not `127.0.0.1`), whose pages a test writes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<!doctype html><title>hostile</title><body></body>"})

    with AppServer(app) as server:
        yield f"http://localhost:{server.port}/"


async def connect(page: Page, env: GatewayEnv, path: str = "/mikomo") -> None:
    await page.goto(f"{env.url}{path}")
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{env.url}{path}")


async def ours(context: BrowserContext, env: GatewayEnv) -> dict[str, Any]:
    return {
        cookie["name"]: dict(cookie) for cookie in await context.cookies(env.url) if "akoya" in cookie.get("name", "")
    }


async def test_login_csrf_leaves_the_victim_with_nothing_of_the_attackers(
    env: GatewayEnv, page: Page, hostile_site: str
) -> None:
    with env.browser() as attacker:
        callback = env.akoya.consent(attacker.begin(), "mikomo_4")
    await page.goto(f"{env.url}/akoya/connect/mikomo")  # the victim has an attempt too
    await page.goto(hostile_site)
    await page.evaluate("url => { location.href = url }", callback)
    await page.wait_for_url(re.compile("/akoya/callback"))
    await expect(page.get_by_role("heading")).to_contain_text("cannot be completed")
    assert (await page.request.get(f"{env.url}/accounts")).status == 401


async def test_planted_session_cookie_gives_the_attacker_no_access(
    env: GatewayEnv, context: BrowserContext, page: Page
) -> None:
    with env.browser() as attacker:
        attacker.connect(user="mikomo_4")
        planted: list[SetCookieParam] = [
            {"name": name, "value": value, "url": env.url} for name, value in attacker.http.cookies.items()
        ]
        await context.add_cookies(planted)
        await page.goto(f"{env.url}/akoya/connect/other?return_to=/accounts")
        await log_in(page)
        await approve(page)
        await page.wait_for_url(f"{env.url}/accounts")
        now = {name: cookie["value"] for name, cookie in (await ours(context, env)).items()}
        assert all(
            now[str(cookie["name"])] != cookie["value"]
            for cookie in planted
            if not str(cookie["name"]).endswith("-browser")
        )
        # A cached session is valid for a second.
        until(lambda: attacker.fetch("/accounts").status_code == 401, "the planted session is refused")


async def test_gateway_pages_cannot_be_framed_for_clicks(env: GatewayEnv, page: Page, hostile_site: str) -> None:
    await connect(page, env)
    await page.goto(hostile_site)
    await page.evaluate(
        "url => new Promise(loaded => {"
        " document.body.innerHTML = `<iframe src='${url}' width=600 height=600></iframe>`;"
        " document.querySelector('iframe').onload = loaded })",
        f"{env.url}/akoya/",
    )
    [frame] = page.frames[1:]
    assert "Your bank connections" not in await frame.content()
    assert (await page.request.get(f"{env.url}/accounts")).status == 200


@pytest.mark.parametrize("route", ["/akoya/disconnect/mikomo", "/akoya/logout"])
async def test_form_on_another_site_does_nothing(env: GatewayEnv, page: Page, hostile_site: str, route: str) -> None:
    await connect(page, env)
    await page.goto(hostile_site)
    await page.evaluate(
        "url => { document.body.innerHTML = `<form method=post action='${url}'><input name=csrf value=x></form>`; document.forms[0].submit() }",
        env.url + route,
    )
    await page.wait_for_url(env.url + "/**")
    assert (await page.request.get(f"{env.url}/accounts")).status == 200


async def test_script_on_another_site_cannot_read_gateway_responses(
    env: GatewayEnv, page: Page, hostile_site: str
) -> None:
    await connect(page, env)
    await page.goto(hostile_site)
    for path in ("/akoya/", "/accounts", "/akoya/jwks.json"):
        text = await page.evaluate(
            "url => fetch(url, {credentials: 'include'}).then(r => r.text(), () => 'kept back')", env.url + path
        )
        assert text == "kept back"


async def test_script_of_the_app_cannot_read_the_session(env: GatewayEnv, page: Page) -> None:
    await connect(page, env)
    assert await page.evaluate("document.cookie") == ""


async def test_page_is_not_kept_for_the_back_button_after_logout(env: GatewayEnv, page: Page) -> None:
    await connect(page, env)
    await page.goto(f"{env.url}/akoya/")
    await ask_to_sign_out(page)
    await page.evaluate("window.kept = true")
    await page.get_by_role("button", name="Sign out and disconnect").click()
    await page.wait_for_url(re.compile("done=signed-out"))
    await page.go_back()
    await page.wait_for_load_state()
    assert await page.evaluate("window.kept") is None, "not from the back/forward cache"
    await expect(page.get_by_text("Connected", exact=True)).to_have_count(0)


async def test_on_loopback_http_the_cookies_have_no_prefix_and_are_not_secure(
    env: GatewayEnv, context: BrowserContext, page: Page
) -> None:
    await connect(page, env)
    found = await ours(context, env)
    # Cookies are shared across ports, so the cookie name contains the port to separate two gateways on localhost.
    assert set(found) == {f"akoya-{env.port}", f"akoya-{env.port}-browser"}
    for cookie in found.values():
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, False, "Lax", "/")


async def test_behind_tls_the_cookies_are_host_bound_and_secure(
    tls_env: GatewayEnv, context: BrowserContext, page: Page
) -> None:
    await connect(page, tls_env)
    assert '"akoya-connector", "mikomo"' in await page.content()
    found = await ours(context, tls_env)
    assert set(found) == {"__Host-akoya", "__Host-akoya-browser"}
    for cookie in found.values():
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
        assert cookie["domain"] == "127.0.0.1", "no Domain attribute"


async def test_behind_tls_with_a_prefix_of_its_own_everything_works_to_the_end(
    tls_env: GatewayEnv, context: BrowserContext, page: Page
) -> None:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.headers.get("referer", "")))
    await page.goto(f"{tls_env.url}/accounts")
    await page.wait_for_url(re.compile(re.escape(tls_env.url) + r"/bank-links/\?return_to="))
    await page.get_by_role("link", name=re.compile("connect", re.I)).first.click()
    await log_in(page)
    await approve(page)
    await page.wait_for_url(f"{tls_env.url}/accounts")
    assert not [referer for referer in seen if "code=" in referer or "state=" in referer]
    await page.goto(f"{tls_env.url}/bank-links/")
    await disconnect(page)
    await expect(page.get_by_role("status")).to_contain_text("disconnected")
    await page.goto(f"{tls_env.url}/bank-links/")
    await page.get_by_role("button", name=re.compile("sign out", re.I)).click()
    await page.wait_for_url(re.compile("done=signed-out"))
    assert "__Host-akoya" not in await ours(context, tls_env), "the gateway accepted the deletion"
