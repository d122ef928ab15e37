"""Text in, one frozen `Config` out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic

if TYPE_CHECKING:
    from akoya_gateway.config.loader import load_config

__all__ = ["ConfigurationError", "Diagnostic", "load_config"]


def __getattr__(name: str) -> object:
    # The parsers are loaded with the first file, so that `config.model` alone stays light.
    if name == "load_config":
        from akoya_gateway.config.loader import load_config  # noqa: PLC0415

        return load_config
    raise AttributeError(name)
