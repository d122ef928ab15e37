from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import Browser, World


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for a module's tests; each test gets a browser of its own. Whatever holds for one face holds for
    the other."""
    with World(tmp_path_factory.mktemp("world"), face=request.param) as world:
        yield world


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    with world.browser() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
