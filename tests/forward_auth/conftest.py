from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedEnv
from tests.support.proxies import PROXIES, ProxyMissing


@pytest.fixture(scope="session", params=list(PROXIES))
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedEnv]:
    """One environment per proxy, for tests that change nothing in it except a browser's own grants."""
    try:
        env = ProxiedEnv(tmp_path_factory.mktemp(request.param), request.param)
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        yield env


@pytest.fixture
def browser(env: ProxiedEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def member(env: ProxiedEnv) -> Iterator[Browser]:
    """A browser that has connected a bank, for read-only tests."""
    with env.browser() as browser:
        landed = browser.connect()
        assert landed.status_code == 302, landed.text
        yield browser
