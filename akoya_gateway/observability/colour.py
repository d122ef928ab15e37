"""Whether the user wants colours on the terminal. Every command imports this module, so it imports nothing heavy."""

from __future__ import annotations

import os


def no_colour() -> bool:
    """Return True if the user wants no colours: `NO_COLOR` is set (no-color.org), or the terminal is `dumb`."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
