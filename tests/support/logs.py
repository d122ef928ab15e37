"""The log of a process that is still running.

A reader may see any part of a line that is just being written: the kernel copies a large write to the file page by page.
"""

from pathlib import Path


def complete_lines(log: Path) -> str:
    """Return the lines of a log that end in a line break. What follows the last one is still being written."""
    text = log.read_bytes()
    return text[: text.rfind(b"\n") + 1].decode(errors="replace")
