from __future__ import annotations

import pytest

from tests.support.signing import KEYS


@pytest.fixture(params=sorted(KEYS))
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)
