"""Formats columns of text for a terminal.

No library is used for this: once installed, it would also be imported by httpx and structlog, and so stay in the memory
of `run`.
"""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format the rows as lines. Every column is as wide as its widest cell."""
    return [row_of(cells, [max(map(len, column)) for column in zip(*rows, strict=True)]) for cells in rows]


def row_of(cells: Sequence[str], widths: Sequence[int], *, truncate: bool = False) -> str:
    """Format one row. With `truncate`, a cell that is too long for its column ends in an ellipsis."""
    fitted = (
        cell if not truncate or len(cell) <= width else cell[: width - 1] + "…"
        for cell, width in zip(cells, widths, strict=True)
    )
    return GAP.join(f"{cell:{width}}" for cell, width in zip(fitted, widths, strict=True)).rstrip()
