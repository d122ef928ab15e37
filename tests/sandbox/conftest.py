from __future__ import annotations

from collections.abc import Iterator

import pytest

from akoya_gateway.sandbox import SandboxDialect, SandboxServer, SandboxSettings


@pytest.fixture(scope="module", params=list(SandboxDialect))
def either(request: pytest.FixtureRequest) -> Iterator[SandboxServer]:
    """An emulator of each dialect, shared by a module: a test that switches faults on takes `akoya_sandbox`."""
    with SandboxServer(SandboxSettings(dialect=request.param)) as server:
        yield server


@pytest.fixture(scope="module")
def dex() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module")
def hydra() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(dialect=SandboxDialect.HYDRA)) as server:
        yield server
