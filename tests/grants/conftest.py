from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.grants import Provider


@pytest.fixture(autouse=True)
def nothing_that_must_never_happen() -> Iterator[None]:
    Provider.crimes.clear()
    yield
    assert not Provider.crimes
