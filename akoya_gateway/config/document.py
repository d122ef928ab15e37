"""Parses YAML into plain values, and records the position of each value and key.

It uses PyYAML's events. They have the line and column and, unlike PyYAML's node composer, let this module limit depth,
aliases and sizes while the text is parsed. Scalars are resolved by the YAML 1.2 core schema, as in editors: `on`, `no`
and `12:30` are strings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, Path, did_you_mean, quoted

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_VALUES = 20_000
"""Maximum number of values after aliases are expanded: a few lines of nested aliases can stand for billions of values.
"""

Value = dict[str, Any] | list[Any] | str | int | float | bool | None

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BRACES = re.compile(r"[^\s\"'{,]\{[A-Za-z_]\w*\}")
"""Matches a parameter in a text that is not quoted, such as `/api/{bank}`."""
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?\Z")
_TAG = "tag:yaml.org,2002:"
_TAGS = {
    MappingStartEvent: {f"{_TAG}map"},
    SequenceStartEvent: {f"{_TAG}seq"},
    ScalarEvent: {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null")},
}


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the text. Line and column start at 1. Columns count characters."""

    line: int
    column: int


_START_POSITION = Position(1, 1)
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
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
            position = self.values.get(above, _START_POSITION if not above else None)
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
    reader = _Reader(name, text)
    try:
        top = reader.top()
    except yaml.YAMLError as error:
        raise ConfigurationError([*reader.diagnostics, _syntax_diagnostic(error, name, text)]) from None
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


@dataclass(slots=True)
class _Node:
    """One node of the text. An alias is represented by the node it refers to, so a node may occur several times."""

    position: Position
    kind: type[Event]
    scalar: Value = None
    text: str = ""
    items: list[_Node] = field(default_factory=list)
    pairs: list[tuple[_Node, _Node]] = field(default_factory=list)
    complete: bool = False


class _Reader:
    """Turns events into nodes. Errors that do not prevent further parsing are collected instead of raised."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._events: Iterator[Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, _Node] = {}
        self.diagnostics: list[Diagnostic] = []

    def top(self) -> _Node | None:
        node: _Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._add_diagnostic(
                        _event_position(event), "a second document starts here", "keep one document in the file"
                    )
                    break
                node = self._node(next(self._events), 0)
        return node

    def _add_diagnostic(self, position: Position, message: str, remedy: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(self._name, position.line, position.column, (), message, remedy))

    def _node(self, event: Event, depth: int) -> _Node:
        position = _event_position(event)
        if depth > MAX_DEPTH:
            self._add_diagnostic(position, _TOO_DEEP)
            raise ConfigurationError(self.diagnostics)
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor or "", position)
        node = _Node(position, type(event))
        self._check_tag(event, position)
        self._anchor(event, node)
        if isinstance(event, ScalarEvent):
            node.text = event.value
            node.scalar = _resolve(event)
        elif isinstance(event, SequenceStartEvent):
            while not isinstance(item := next(self._events), SequenceEndEvent):
                node.items.append(self._node(item, depth + 1))
        else:
            while not isinstance(key := next(self._events), MappingEndEvent):
                node.pairs.append((self._node(key, depth + 1), self._node(next(self._events), depth + 1)))
        node.complete = True
        return node

    def _anchor(self, event: Event, node: _Node) -> None:
        name = getattr(event, "anchor", None)
        if name is None:
            return
        if name in self._anchors:
            self._add_diagnostic(node.position, f"the anchor &{name} is defined twice", "give it another name")
        self._anchors[name] = node

    def _alias(self, name: str, position: Position) -> _Node:
        node = self._anchors.get(name)
        if node is None:
            remedy = did_you_mean(name, self._anchors) or "define it earlier with &, or quote a text that starts with *"
            self._add_diagnostic(position, f"no anchor &{name} before this alias", remedy)
            return _Node(position, ScalarEvent, complete=True)
        if not node.complete:
            self._add_diagnostic(
                position, f"the alias *{name} is inside the node that it refers to", "remove the cycle"
            )
            return _Node(position, ScalarEvent, complete=True)
        return node

    def _check_tag(self, event: Event, position: Position) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and tag not in _TAGS[type(event)]:
            short_tag = tag.replace(_TAG, "!!")
            self._add_diagnostic(position, f"unknown tag {quoted(short_tag)}", "write the plain value without a tag")


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

    def value(self, node: _Node, path: Path) -> Value:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            what = f"more than {MAX_VALUES} values, each alias counted as what it stands for"
            if len(path) > MAX_DEPTH:
                what = _TOO_DEEP
            self._add_diagnostic(node.position, (), what, "a configuration needs a few hundred values at most")
            raise ConfigurationError(self.diagnostics)
        self.values[path] = node.position
        if node.kind is ScalarEvent:
            return node.scalar
        if node.kind is SequenceStartEvent:
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        return self._mapping(node, path)

    def _mapping(self, node: _Node, path: Path) -> dict[str, Any]:
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

    def _merge(self, node: _Node, path: Path, merged: dict[str, Any]) -> None:
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


def _event_position(event: Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else _START_POSITION


def _resolve(event: ScalarEvent) -> Value:
    """Resolve a scalar by the YAML 1.2 core schema (YAML 1.2.2 section 10.3.2).

    Octal and hexadecimal numbers, infinities and not-a-number are not supported and stay strings.
    """
    text: str = event.value
    if event.tag in (f"{_TAG}str", "!") or event.style:  # Quoted, literal and folded scalars are strings.
        return text
    if _NULL.match(text):
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


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


_SYNTAX: tuple[tuple[str, str, str | None], ...] = (
    # libyaml's own limit. Newer versions can reach it before our check does, because their scanner reads ahead.
    ("maximum nesting depth", _TOO_DEEP, "a configuration needs a few levels"),
    ("found character '\\t'", "a tab cannot indent or start a value", "use spaces"),
    ("that cannot start any token", "a character that cannot start a value", "quote the value"),
    ("mapping values are not allowed", "a `:` where no key can be", "check the indentation, or quote a text with `: `"),
    ("could not find expected ':'", "a key without its `:`", "add it, or quote the text"),
    ("did not find expected key", "a key was expected here", "check the indentation and commas"),
    ("did not find expected ',' or", "a list or mapping in brackets is not closed, or a comma is missing", None),
    ("did not find expected '-'", "an item of the list was expected here", "check the indentation"),
    ("found unexpected end of stream", "a quoted text is not closed", "add the closing quote"),
    ("expected alphabetic or numeric", "a name was expected after & or *", "quote a text that starts with & or *"),
    ("undefined tag handle", "unknown tag", "write the plain value without a tag"),
)


def _syntax_diagnostic(error: yaml.YAMLError, name: str, text: str) -> Diagnostic:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "it cannot be read as YAML")
    position = Position(mark.line + 1, mark.column + 1) if mark else _START_POSITION
    lines = text.split("\n")
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        column = indent.index("\t") + 1
        return Diagnostic(
            name, position.line, column, (), "a tab in the indentation", "YAML is indented by spaces only"
        )
    for start, message, remedy in _SYNTAX:
        if start in problem:
            advice = remedy
            if advice is None and _BRACES.search(line):
                advice = 'quote texts with braces, such as "/api/{connector}/*" and "{connector}"'
            opened = getattr(error, "context_mark", None)
            if opened and "is not closed" in message:
                position = Position(opened.line + 1, opened.column + 1)
            return Diagnostic(name, position.line, position.column, (), message, advice)
    printable = problem.encode("ascii", "backslashreplace").decode()[:200]
    return Diagnostic(name, position.line, position.column, (), f"not YAML: {printable}", None)
