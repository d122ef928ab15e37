"""Parses and validates gateway.yaml, and returns one frozen `Config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic

if TYPE_CHECKING:
    from akoya_gateway.config.loader import load_config

CONFIG_VARIABLE = "AKOYA_GATEWAY_CONFIG"
"""Environment variable with the path of the configuration, for the command line and `akoya_gateway.sidecar`.

Defaults to `gateway.yaml`.
"""

__all__ = ["CONFIG_VARIABLE", "ConfigurationError", "Diagnostic", "load_config"]


def __getattr__(name: str) -> object:
    # Import lazily: code that needs only `config.model` should not load the parsers.
    if name == "load_config":
        from akoya_gateway.config.loader import load_config  # noqa: PLC0415

        return load_config
    raise AttributeError(name)
