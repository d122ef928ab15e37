"""pytest plugin with the fixture `akoya_sandbox`, which runs a separate emulator for each test.

Override the fixture `akoya_sandbox_settings` to configure it. Heavy modules are imported only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from akoya_gateway.sandbox.server import SandboxServer
    from akoya_gateway.sandbox.settings import SandboxSettings
    from akoya_gateway.sandbox.signing_keys import Key


@pytest.fixture
def akoya_sandbox_settings() -> SandboxSettings:
    """The settings of `akoya_sandbox`: Akoya's documented behaviour."""
    from akoya_gateway.sandbox.settings import SandboxSettings  # noqa: PLC0415

    return SandboxSettings()


@pytest.fixture(scope="session")
def _akoya_sandbox_first_key() -> Callable[[str], Key]:
    """Cache one key per algorithm for the session, because generating an RSA key takes longer than most tests."""
    from akoya_gateway.sandbox.signing_keys import new_key  # noqa: PLC0415

    return lru_cache(new_key)


@pytest.fixture
def akoya_sandbox(
    akoya_sandbox_settings: SandboxSettings, _akoya_sandbox_first_key: Callable[[str], Key]
) -> Iterator[SandboxServer]:
    """A running `SandboxServer` on a free loopback port."""
    from akoya_gateway.sandbox.server import SandboxServer  # noqa: PLC0415
    from akoya_gateway.sandbox.signing_keys import SigningKeys  # noqa: PLC0415

    alg = akoya_sandbox_settings.alg
    with SandboxServer(akoya_sandbox_settings, keys=SigningKeys(alg, _akoya_sandbox_first_key(alg))) as server:
        yield server
