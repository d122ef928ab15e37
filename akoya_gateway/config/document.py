"""Reads a YAML file into plain values, and records the position of each value and key. Limits its size."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.events import MappingStartEvent, ScalarEvent, SequenceStartEvent

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, Path
from akoya_gateway.config.yaml_nodes import (
    MAX_DEPTH,
    START_POSITION,
    TOO_DEEP,
    Node,
    NodeReader,
    Position,
    Value,
    syntax_diagnostic,
)

MAX_BYTES = 1024 * 1024
MAX_VALUES = 20_000
"""Maximum number of values after aliases are expanded: a few lines of nested aliases can stand for billions of values.
"""

_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_START_REMEDY = "start with `version: 1`; `akoya-gateway schema` prints all that can follow"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `values` and `keys` map every path to the position of its value and of its key."""

    file: str
    data: dict[str, Any]
    values: dict[Path, Position] = field(repr=False)
    keys: dict[Path, Position] = field(repr=False)

    def diagnostic(self, path: Path, message: str, remedy: str | None = None, *, at_key: bool = False) -> Diagnostic:
        """Return a diagnostic at the position of the value, or of its key if `at_key`.

        If the path is not in the document, the position is that of the nearest ancestor.
        """
        position = self.keys.get(path) if at_key else None
        above = path
        while position is None:
            position = self.values.get(above, START_POSITION if not above else None)
            above = above[:-1]
        return Diagnostic(self.file, position.line, position.column, path, message, remedy)


def read_document(path: FilePath, name: str | None = None) -> Document:
    """Read and parse a file.

    Args:
        path: the file.
        name: the name of the file in diagnostics; `path` by default.

    Raises:
        ConfigurationError: the file cannot be read or parsed. No other exception is raised.
    """
    name = name or str(path)
    return parse_document(_read(path, name), name)


def parse_document(content: bytes, name: str) -> Document:
    """Parse content that has already been read. Like `read_document` otherwise."""
    text = _decode(content, name)
    reader = NodeReader(name, text)
    try:
        top = reader.top()
    except yaml.YAMLError as error:
        raise ConfigurationError([*reader.diagnostics, syntax_diagnostic(error, name, text)]) from None
    if top is None:
        raise _file_error(name, "the file is empty", _START_REMEDY)
    builder = _Builder(name)
    data = builder.value(top, ())
    if faults := [*reader.diagnostics, *builder.diagnostics]:
        raise ConfigurationError(faults)
    if not isinstance(data, dict):
        raise _file_error(name, f"the top level is {kind_of(data)}, not a mapping", _START_REMEDY)
    return Document(name, data, builder.values, builder.keys)


def _file_error(name: str, message: str, remedy: str | None) -> ConfigurationError:
    return ConfigurationError([Diagnostic(name, 1, 1, (), message, remedy)])


def _read(path: FilePath, name: str) -> bytes:
    try:
        if path.is_dir():
            raise _file_error(name, "this is a directory", "name a file, such as gateway.yaml")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        remedy = "name one with --config, in Python with config=, or write one with `akoya-gateway init`"
        raise _file_error(name, "there is no such file", remedy) from None
    except PermissionError:
        raise _file_error(name, "the file may not be read by this user", "change its owner or mode") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise _file_error(name, f"the file cannot be read: {reason}", None) from None
    if len(content) > MAX_BYTES:
        raise _file_error(name, "the file is larger than 1 MiB", "a configuration is a few kilobytes; is it this file?")
    return content


def _decode(content: bytes, name: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _file_error(name, "the file is UTF-16", "save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)  # Allowed by YAML 1.2 section 5.2; some editors add it.
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        position = _position_of(content[: error.start].decode())
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise ConfigurationError(
            [Diagnostic(name, position.line, position.column, (), message, "save it as UTF-8")]
        ) from None
    if bad := _UNPRINTABLE.search(text):
        position = _position_of(text[: bad.start()])
        what = "a NUL byte" if bad.group() == "\0" else f"the control character U+{ord(bad.group()):04X}"
        raise ConfigurationError(
            [Diagnostic(name, position.line, position.column, (), f"{what} in the text", "remove it")]
        )
    return text


def _position_of(before: str) -> Position:
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


class _Builder:
    """Turns nodes into values with their paths. Aliases are expanded here, so the number of values is limited here."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self.diagnostics: list[Diagnostic] = []
        self.values: dict[Path, Position] = {}
        self.keys: dict[Path, Position] = {}

    def _add_diagnostic(self, position: Position, path: Path, message: str, remedy: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(self._name, position.line, position.column, path, message, remedy))

    def value(self, node: Node, path: Path) -> Value:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            what = f"more than {MAX_VALUES} values, each alias counted as what it stands for"
            if len(path) > MAX_DEPTH:
                what = TOO_DEEP
            self._add_diagnostic(node.position, (), what, "a configuration needs a few hundred values at most")
            raise ConfigurationError(self.diagnostics)
        self.values[path] = node.position
        if node.kind is ScalarEvent:
            return node.scalar
        if node.kind is SequenceStartEvent:
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        return self._mapping(node, path)

    def _mapping(self, node: Node, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.pairs:
            here = (*path, key.text)
            if key.kind is not ScalarEvent or not key.text:
                self._add_diagnostic(
                    key.position, path, "a key must be a non-empty text", "quote what starts with {, [ or *"
                )
            elif key.text == "<<":
                self._merge(value, path, merged)
            elif key.text in own:
                first = self.keys[here].line
                self._add_diagnostic(
                    key.position, here, f"this key was given before, in line {first}", "keep one of the two"
                )
            else:
                self._forget(here)
                self.keys[here] = key.position
                own[key.text] = self.value(value, here)
        return merged | own

    def _merge(self, node: Node, path: Path, merged: dict[str, Any]) -> None:
        """Apply `<<: *alias` or `<<: [*one, *two]` (YAML merge key type). The mapping's own keys take precedence."""
        sources = node.items if node.kind is SequenceStartEvent else [node]
        for source in sources:
            if source.kind is not MappingStartEvent:
                self._add_diagnostic(source.position, path, "only mappings can be merged", "give an alias of a mapping")
                continue
            for key, value in source.pairs:
                here = (*path, key.text)
                if key.text and key.text not in merged and here not in self.keys:
                    self.keys[here] = key.position
                    merged[key.text] = self.value(value, here)

    def _forget(self, path: Path) -> None:
        """Remove the positions of a merged value that the mapping's own key replaces."""
        if path in self.keys:
            for places in (self.keys, self.values):
                for old in [each for each in places if each[: len(path)] == path]:
                    del places[old]


def kind_of(value: Value) -> str:
    """Return the name of the value's type for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "a mapping"
