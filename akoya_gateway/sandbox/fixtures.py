"""pytest plugin: the fixture `akoya_sandbox`, an emulator of its own for each test.

Override the fixture `akoya_sandbox_settings` to change how it behaves. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from akoya_gateway.sandbox.server import SandboxServer
    from akoya_gateway.sandbox.settings import SandboxSettings


@pytest.fixture
def akoya_sandbox_settings() -> SandboxSettings:
    """The settings of `akoya_sandbox`: Akoya's documented behaviour."""
    from akoya_gateway.sandbox.settings import SandboxSettings  # noqa: PLC0415

    return SandboxSettings()


@pytest.fixture
def akoya_sandbox(akoya_sandbox_settings: SandboxSettings) -> Iterator[SandboxServer]:
    """A running `SandboxServer` on a free loopback port."""
    from akoya_gateway.sandbox.server import SandboxServer  # noqa: PLC0415

    with SandboxServer(akoya_sandbox_settings) as server:
        yield server
