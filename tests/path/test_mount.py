"""Tests of the middleware mounted in another app: its routes, rules and redirects apply below the mount only."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from akoya_gateway import Gateway, load_config
from tests.support.config_documents import ENVIRON, changed, validated
from tests.support.environment import Browser, GatewayEnv


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    changes = {
        "root_path": "/bank",
        "redirects": {"after_connect": "/bank/accounts", "allow": ["/bank/accounts", "/bank/mikomo"]},
    }
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint="middleware", mount="/bank", changes=changes) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        yield browser


def test_rules_are_relative_to_the_mount(browser: Browser) -> None:
    assert browser.fetch("/bank/public/x").status_code == 200
    assert browser.fetch("/bank/nowhere").status_code == 403
    assert browser.fetch("/public/x").text == "outside"


def test_user_connects_below_the_mount_and_the_app_gets_a_signed_token(browser: Browser) -> None:
    sent = browser.go("/bank/mikomo").headers["location"]
    assert sent == "/bank/akoya/connect/mikomo?return_to=/bank/mikomo"
    landed = browser.connect(return_to="/bank/mikomo")
    assert (landed.status_code, landed.headers["location"]) == (302, "/bank/mikomo")
    seen = browser.fetch("/bank/mikomo").json()
    assert (seen["path"], dict(seen["headers"])["akoya-connector"]) == ("/bank/mikomo", "mikomo")
    assert seen["signature"].startswith("valid: ")


def test_pages_link_below_the_mount(browser: Browser) -> None:
    page = browser.go("/bank/akoya/").text
    assert 'href="/bank/akoya/connect/mikomo' in page
    assert '"/akoya/' not in page
    assert browser.go("/akoya/").text == "outside"


async def send_request(gateway: Gateway, path: str, root_path: str | None, kind: str = "http") -> tuple[int, Any]:
    """Return the HTTP status (or WebSocket close code) and the `root_path` that the app received."""
    scope: dict[str, Any] = {"type": kind, "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
                             "headers": [(b"host", b"app.example.com"), (b"origin", b"https://app.example.com")], "scheme": "http",
                             "client": ("127.0.0.1", 4000), "server": ("127.0.0.1", 80)}  # fmt: skip
    if root_path is not None:
        scope["root_path"] = root_path
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(dict(message))

    await gateway(scope, receive, send)
    return messages[0].get("status") or messages[0]["code"], messages[-1].get("body") or messages[-1].get("reason")


def gateway(folder: Path, **changes: Any) -> Gateway:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope.get("root_path", "").encode()})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4000, "reason": scope.get("root_path", "")})

    path = folder / "gateway.yaml"
    document = {
        **changed({"access": [{"path": "/pub/*", "require": "nothing"}], "sessions.store": "memory://", **changes}),
        "admin": None,
    }
    path.write_text(yaml.safe_dump(document))
    return Gateway(app, load_config(path, ENVIRON))


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("configured", "path", "named", "served"),
    [("", "/pub/x", "", True), ("", "/pub/x", None, True), ("", "/pub/x", "/pub", False), ("", "/pub/x", "/", False), ("/bank", "/bank/pub/x", "/bank", True),
     ("/bank", "/bank/pub/x", "", False), ("/bank", "/bank/pub/x", None, False), ("/bank", "/bank/pub/x", "/bank/pub", False),
     ("/bank", "/pub/x", "/bank", False), ("/bank", "/bankpub/x", "/bank", False), ("/bank", "/bank/pub/x", "/bank/", False)],
)  # fmt: skip
async def test_only_the_configured_root_path_is_served(
    tmp_path: Path, kind: str, configured: str, path: str, named: str | None, served: bool
) -> None:
    mounted = gateway(tmp_path, root_path=configured)
    await mounted.startup()
    for _ in range(3):  # The first request and the cached ones.
        status, body = await send_request(mounted, path, named, kind)
        assert (status == (200 if kind == "http" else 4000)) is served, (status, body)
    await mounted.shutdown()


async def test_another_root_path_is_logged_once_for_each_of_a_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = gateway(tmp_path)
    await mounted.startup()
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            for _ in range(2):
                assert (await send_request(mounted, "/pub/x", f"/other{number}"))[0] == 400
    await mounted.shutdown()
    assert len([record for record in caplog.records if "root_path mismatch detected" in record.message]) == 10


def test_paths_of_a_mounted_configuration_are_those_that_browsers_see(tmp_path: Path) -> None:
    config = validated(
        tmp_path, {"root_path": "/bank", "clients.demo-app.redirect_uri": "https://app.example.com/bank/akoya/callback"}
    ).config
    assert config is not None
    assert (config.prefix, config.access[0].path, config.access[0].label) == (
        "/bank/akoya",
        "/bank/*",
        "access[0] /bank/*",
    )
    assert config.redirects.after_error == "/bank/akoya/"


def test_callback_outside_of_the_mount_is_a_warning_and_an_upstream_a_fault(tmp_path: Path) -> None:
    warnings = validated(tmp_path, {"root_path": "/bank"}).warnings
    assert "the app around the gateway passes it nothing outside of /bank/" in "".join(map(str, warnings))
    faults = validated(tmp_path, {"root_path": "/bank", "upstream": {"url": "http://127.0.0.1:1"}}).diagnostics
    assert [diagnostic.message for diagnostic in faults] == [
        "only middleware is mounted in another app, but an upstream is configured"
    ]
