"""The Akoya emulator: Akoya's authorization, token, revocation and data endpoints on your own machine.

`create_app(SandboxSettings())` returns an ASGI app. `SandboxServer()` runs it on a free port. The pytest fixture
`akoya_sandbox` does so for one test. `docs/sandbox.md` has the facts and their sources.

Names are imported on first use, so that the pytest plugin does not slow down tests that do not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from akoya_gateway.sandbox.app import create_app
    from akoya_gateway.sandbox.fault_injection import Fault, FaultKind
    from akoya_gateway.sandbox.server import SandboxServer
    from akoya_gateway.sandbox.settings import (
        Audience,
        SandboxClient,
        SandboxConnector,
        SandboxDialect,
        SandboxSettings,
    )

__all__ = [
    "Audience",
    "Fault",
    "FaultKind",
    "SandboxClient",
    "SandboxConnector",
    "SandboxDialect",
    "SandboxServer",
    "SandboxSettings",
    "create_app",
]

_HOMES = {
    "create_app": "app",
    "Fault": "fault_injection",
    "FaultKind": "fault_injection",
    "SandboxServer": "server",
    "Audience": "settings",
    "SandboxClient": "settings",
    "SandboxConnector": "settings",
    "SandboxDialect": "settings",
    "SandboxSettings": "settings",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
