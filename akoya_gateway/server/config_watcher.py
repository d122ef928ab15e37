"""Detects changes of the configuration file and of the files it names, by polling once a second.

Polling costs a few microseconds and works on every kind of file system and volume (Kubernetes swaps symbolic links). It
needs no thread, which matters because the supervisor forks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_FILE_KEYS = frozenset({"file", "ca", "certificate", "key", "logo", "templates"})

Stamp = tuple[tuple[str, int, int, int], ...]


class ConfigWatcher:
    """Report each change once, after the files have been the same for two consecutive polls.

    The second poll keeps half-written files from being loaded.
    """

    def __init__(self, config: Path) -> None:
        self._config = config
        self._files = named_files(config)
        self._last_stamp = self._stamp()
        self._accepted_stamp = self._last_stamp

    def changed(self) -> bool:
        """Poll the files and return True once per change."""
        before, self._last_stamp = self._last_stamp, self._stamp()
        if self._last_stamp != before or self._last_stamp == self._accepted_stamp:
            return False
        self._files = named_files(self._config) or self._files
        self._last_stamp = self._accepted_stamp = self._stamp()
        return True

    def _stamp(self) -> Stamp:
        return tuple(_stamp(path) for path in (self._config, *self._files))


def named_files(config: Path) -> tuple[Path, ...]:
    """Return the files that a configuration names. Empty if it cannot be read."""
    try:
        document = yaml.safe_load(config.read_text("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return ()
    files = {config.parent / name for name in _names(document)}
    for folder in tuple(files):
        # A directory of templates: its own stamp changes when a file is added or removed.
        with contextlib.suppress(OSError):
            files.update(each for each in folder.iterdir() if each.suffix in (".html", ".css"))
    return tuple(sorted(files))


def _names(node: Any, depth: int = 0) -> Iterator[str]:
    if depth > 32:
        return
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _FILE_KEYS and isinstance(value, str) and "\0" not in value:
                yield value
            else:
                yield from _names(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from _names(value, depth + 1)


def _stamp(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
