"""The PDF file that the emulator returns for every document."""

from __future__ import annotations

from pathlib import Path

PDF = (Path(__file__).parent.parent / "assets" / "document.pdf").read_bytes()
