"""Columns of text for a terminal. Written out here: a library for it would stay in the memory of `run`, where others
(httpx, structlog) load it as soon as it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Every column as wide as its widest cell."""
    return [row_of(cells, [max(map(len, column)) for column in zip(*rows, strict=True)]) for cells in rows]


def row_of(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line; what is too long for its column ends in an ellipsis."""
    fitted = (
        cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(cells, widths, strict=True)
    )
    return GAP.join(f"{cell:{width}}" for cell, width in zip(fitted, widths, strict=True)).rstrip()
