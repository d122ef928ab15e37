"""The store fails during operation: no user is logged out, and every request gets a proper response."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from akoya_gateway import Gateway, load_config
from tests.e2e.log_errors import errors
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer
from tests.support.redis_servers import RedisServer
from tests.support.upstream_apps import asgi_app
from tests.support.waiting import until, until_async


@pytest.fixture(scope="module")
def redis_of_this_world() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def env(redis_of_this_world: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    sessions = {"store": redis_of_this_world.url, "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes={"sessions": sessions}) as env:
        yield env


def test_store_that_fails_between_the_exchange_and_the_grant_does_not_log_out(
    env: GatewayEnv, browser: Browser, redis_of_this_world: RedisServer
) -> None:
    browser.connect("mikomo")
    before = browser.passed("/mikomo")
    callback = env.akoya.consent(browser.begin("other"), "mikomo_1")
    env.akoya.fault("slow_after", "token.authorization_code", times=1, seconds=3.0)
    responses: list[httpx.Response] = []
    walk = threading.Thread(target=lambda: responses.append(browser.go(callback)))
    walk.start()
    until(lambda: is_being_exchanged(env), "the code is being exchanged")
    redis_of_this_world.kill()
    try:
        walk.join(60)
    finally:
        redis_of_this_world.start()
    assert errors(responses[0]) == "store-unavailable"
    assert after_recovery(browser)["akoya-owner"] == before["akoya-owner"]


def test_unavailable_store_is_logged_once_a_second_for_any_number_of_requests(
    env: GatewayEnv, browser: Browser, redis_of_this_world: RedisServer
) -> None:
    browser.begin()  # The gateway has started, and must not exit because the store is down.
    event = "request failed"
    before, began = env.log().count(event), time.monotonic()
    redis_of_this_world.kill()
    try:
        refused = [browser.go("/akoya/connect/mikomo").status_code for _ in range(30)]
    finally:
        redis_of_this_world.start()
    assert set(refused) == {503}
    assert 1 <= env.log().count(event) - before <= time.monotonic() - began + 1
    assert browser.connect().status_code == 302


async def test_browser_that_disconnects_during_the_code_exchange_loses_nothing(tmp_path: Path) -> None:
    """Some ASGI servers cancel the request in this case."""
    env = GatewayEnv(tmp_path)
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in env.config().items() if k != "upstream"}))
    env.akoya.start()
    gateway = Gateway(asgi_app(), load_config(path, env.environ))
    await gateway.startup()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url=env.url) as http:
            begun = await http.get("/akoya/connect/mikomo", headers=Browser.NAVIGATION)
            callback = await asyncio.to_thread(env.akoya.consent, begun.headers["location"], "mikomo_1")
            env.akoya.fault("slow_after", "token.authorization_code", times=1, seconds=2.0)
            walk = asyncio.create_task(http.get(callback, headers=Browser.NAVIGATION))
            await until_async(lambda: asyncio.to_thread(is_being_exchanged, env), "the code is being exchanged")
            walk.cancel()
            await asyncio.wait([walk])
    finally:
        await gateway.shutdown()
        env.akoya.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "grants.db")) as store:
        assert store.execute("SELECT count(*) FROM record WHERE kind = 'grant'").fetchone() == (1,)


def is_being_exchanged(env: GatewayEnv) -> bool:
    """Return whether the emulator has received the request that its fault delays."""
    return not httpx.get(f"{env.akoya.url}/_sandbox/faults", trust_env=False, timeout=60).json()["faults"]


def after_recovery(browser: Browser) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while browser.fetch("/mikomo").status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    return browser.passed("/mikomo")


def test_unavailable_store_at_the_first_request_without_lifespan_is_reported(tmp_path: Path) -> None:
    with RedisServer() as redis:
        sessions = {"store": redis.url, "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
        env = GatewayEnv(tmp_path, changes={"sessions": sessions})
        path = tmp_path / "gateway.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in env.config().items() if k != "upstream"}))
        redis.kill()
        app = Gateway(asgi_app(), load_config(path, env.environ))
        with AppServer(app, port=env.port, lifespan="off"), env.browser() as browser:
            refused = browser.fetch("/accounts")
            page = browser.go("/akoya/")
            redis.start()
            assert browser.fetch("/accounts").status_code == 401
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:akoya-gateway:problem:store-unavailable"
    assert page.status_code == 503
    assert "text/html" in page.headers["content-type"]
    for response in (refused, page):
        assert int(response.headers["retry-after"]) > 0
        assert str(redis.port) not in response.text, "the store's address must not be disclosed"


def test_every_401_has_a_challenge_pages_too(env: GatewayEnv, browser: Browser) -> None:
    page = browser.http.get("/api/banks/mikomo/x", headers={"accept": "text/html", "sec-fetch-mode": "cors"})
    assert page.status_code == 401
    assert "text/html" in page.headers["content-type"]
    assert page.headers["www-authenticate"].startswith("Akoya-Connect")
