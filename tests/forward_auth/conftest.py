from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedWorld
from tests.support.proxies import PROXIES, ProxyMissing


@pytest.fixture(scope="session", params=list(PROXIES))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedWorld]:
    """One world per proxy, for tests that change nothing in it except a browser's own grants."""
    try:
        world = ProxiedWorld(tmp_path_factory.mktemp(request.param), request.param)
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with world:
        yield world


@pytest.fixture
def browser(world: ProxiedWorld) -> Iterator[Browser]:
    with world.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def member(world: ProxiedWorld) -> Iterator[Browser]:
    """A browser that has connected a bank, for read-only tests."""
    with world.browser() as browser:
        landed = browser.connect()
        assert landed.status_code == 302, landed.text
        yield browser
