"""Akoya Gateway: one YAML file between the Akoya network and any app.

The public API consists of `Gateway`, `sidecar` and `load_config` in this module, `akoya_gateway.verify` for upstream
apps (the names of `akoya_verify`), and the pytest fixture `akoya_sandbox`. Everything else may change with any release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from akoya_gateway.version import __version__

if TYPE_CHECKING:
    from akoya_gateway.config import load_config
    from akoya_gateway.entrypoints.asgi_app import sidecar
    from akoya_gateway.gateway.middleware import Gateway

__all__ = ["Gateway", "__version__", "load_config", "sidecar"]


def __getattr__(name: str) -> object:
    # Import lazily: an upstream app that only verifies headers should not have to load the whole gateway.
    if name == "Gateway":
        from akoya_gateway.gateway.middleware import Gateway  # noqa: PLC0415

        return Gateway
    if name == "sidecar":
        from akoya_gateway.entrypoints.asgi_app import sidecar  # noqa: PLC0415

        return sidecar
    if name == "load_config":
        from akoya_gateway.config.loader import load_config  # noqa: PLC0415

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
