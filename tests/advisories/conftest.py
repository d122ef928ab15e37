"""The three entry points of this gateway, or the gateway that `--gateway-url` names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.environment import Browser, GatewayEnv
from tests.support.forward_auth import ProxiedEnv, cookies
from tests.support.proxies import ProxyMissing
from tests.support.target import Target

ENTRYPOINTS = ("sidecar", "middleware", "forward-auth")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("advisories", "another gateway to attack (pytest tests/advisories --gateway-url=...)")
    group.addoption("--gateway-url", default=None, help="origin of a running gateway; only what needs no session runs")
    group.addoption("--protected-path", default="/accounts", help="a path that needs a session; no slash at its end")
    group.addoption("--public-path", default="/public/x", help="a path below a public one, such as /public/x")
    group.addoption("--connect-path", default="", help="the route that starts a login")
    group.addoption("--callback-path", default="", help="the path of the redirect URI")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        url = metafunc.config.getoption("gateway_url", None)
        metafunc.parametrize("target", ["by-url"] if url else list(ENTRYPOINTS), indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if request.param == "by-url":
        yield _by_url(request.config)
        return
    folder = tmp_path_factory.mktemp(request.param)
    try:
        env = (
            ProxiedEnv(folder, "nginx")
            if request.param == "forward-auth"
            else GatewayEnv(folder, entrypoint=request.param)
        )
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        yield Target(request.param, env.url, "/accounts", "/public/x", "/akoya/connect/mikomo", "/akoya/callback", env)


def _by_url(config: pytest.Config) -> Target:
    option = config.getoption
    found = Target("by-url", option("gateway_url"), option("protected_path"), option("public_path"), option("connect_path"),
                   option("callback_path"))  # fmt: skip
    if found.fetch(found.protected).let_in:
        pytest.exit(
            f"{found.url}{found.protected} succeeds without a session: choose another path with --protected-path", 2
        )
    if not found.fetch(found.public).let_in:
        pytest.exit(
            f"{found.url}{found.public} does not succeed without a session: choose another path with --public-path", 2
        )
    return found


@pytest.fixture
def browser(target: Target) -> Iterator[Browser]:
    if target.env is None:
        pytest.skip("needs the emulator")
    with target.env.browser() as browser:
        yield browser


@pytest.fixture
def session(browser: Browser) -> str:
    """The Cookie header of a browser that has connected a bank."""
    assert browser.connect().status_code == 302
    return f"Cookie: {cookies(browser)}"
