from __future__ import annotations

from collections.abc import Iterator

import pytest

from akoya_gateway.sandbox import SandboxDialect, SandboxServer, SandboxSettings


@pytest.fixture(scope="module", params=list(SandboxDialect))
def either(request: pytest.FixtureRequest) -> Iterator[SandboxServer]:
    """Run one emulator per dialect for a whole module. Tests that inject faults use `akoya_sandbox` instead."""
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
