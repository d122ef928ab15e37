"""Tests that an app cannot set `Akoya-*` headers, in any spelling, or the gateway's two cookies in the browser."""

from __future__ import annotations

import pytest

from akoya_gateway.config.model import Cookie
from akoya_gateway.gateway.response_policy import ResponsePolicy
from tests.support.environment import Browser, GatewayEnv


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
            assert sorted(values) == [
                *["/kept"] * 3,
                "akoyan=kept",
                *["kept"] * 4,
                "theirs=kept",
                "x=akoya=kept",
            ]
        assert browser.connections()["connections"], "the browser must keep its own session"


@pytest.mark.parametrize(
    ("value", "hidden"),
    [(b"__Host-bank=1; Secure", True), (b"__Host-bank-browser=1", True), (b"\t__Host-bank\t=1", True), (b"__Host-bank", True), (b"==__Host-bank=1", True),
     (b"bank=1", False), (b"__Host-akoya=1", False), (b"a=__Host-bank=1", False), (b"", False)],
)  # fmt: skip
def test_cookies_are_known_by_their_configured_name(value: bytes, hidden: bool) -> None:
    assert ResponsePolicy(Cookie("__Host-bank", True)).hides(b"set-cookie", value) is hidden
