"""Tests that an app cannot set `Akoya-*` headers, in any spelling, or the gateway's two cookies in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from akoya_gateway.config.model import Cookie
from akoya_gateway.gateway.response_policy import ResponsePolicy
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer

SENT = [(b"akoya-id-token", b"secret"), (b"akoya_id_token", b"secret"), (b"Akoya_Id_Token", b"secret"), (b"akoya.owner", b"secret"), (b"akoya", b"secret"),
        (b"set-cookie", b"akoya=fixed; Path=/"), (b"set-cookie", b"akoya-browser=fixed"), (b"Set-Cookie", b" akoya = fixed"), (b"set-cookie", b"=akoya=fixed"),
        (b"set-cookie", b"theirs=kept"), (b"set-cookie", b"akoyan=kept"), (b"set-cookie", b"x=akoya=kept"), (b"akoyan", b"kept"),
        (b"settings", b"kept"), (b"content-type", b"text/plain")]  # fmt: skip


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        length = [] if scope["path"].endswith("/chunked") else [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": SENT + length})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module", params=["sidecar", "general", "app", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    options = ("--no-fast-lane",) if request.param == "general" else ()
    entrypoint = "sidecar" if request.param == "general" else request.param
    changes = {"sessions": {"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}], "cookie": {"name": "akoya"}}}
    with GatewayEnv(
        tmp_path_factory.mktemp("env"),
        changes=changes,
        entrypoint=entrypoint,
        app=app,
        upstream=AppServer(app),
        options=options,
    ) as env:
        yield env


@pytest.mark.parametrize("path", ["/public/x", "/accounts", "/accounts/chunked"])
def test_names_and_cookies_of_the_gateway_are_taken_out_of_responses(env: GatewayEnv, path: str) -> None:
    with Browser(env) as browser:
        browser.connect()
        for _ in range(3):  # The general path first, then the cached one.
            response = browser.fetch(path)
            assert (response.status_code, response.text) == (200, "ok")
            values = [
                value
                for name, value in response.headers.multi_items()
                if "kept" in value or "fixed" in value or "secret" in value
            ]
            assert sorted(values) == ["akoyan=kept", "kept", "kept", "theirs=kept", "x=akoya=kept"]
        assert browser.connections()["connections"], "the browser must keep its own session"


@pytest.mark.parametrize(
    ("value", "hidden"),
    [(b"__Host-bank=1; Secure", True), (b"__Host-bank-browser=1", True), (b"\t__Host-bank\t=1", True), (b"__Host-bank", True), (b"==__Host-bank=1", True),
     (b"bank=1", False), (b"__Host-akoya=1", False), (b"a=__Host-bank=1", False), (b"", False)],
)  # fmt: skip
def test_cookies_are_known_by_their_configured_name(value: bytes, hidden: bool) -> None:
    assert ResponsePolicy(Cookie("__Host-bank", True)).hides(b"set-cookie", value) is hidden
