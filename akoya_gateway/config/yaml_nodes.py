"""Parses YAML text into nodes with their positions. Nothing is expanded yet: an alias shares its node.

It uses PyYAML's events. They have the line and column and, unlike PyYAML's node composer, let this module limit the
depth while the text is parsed. Scalars are resolved by the YAML 1.2 core schema, as in editors: `on`, `no` and `12:30`
are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, did_you_mean, quoted

MAX_DEPTH = 40
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

Value = dict[str, Any] | list[Any] | str | int | float | bool | None

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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


START_POSITION = Position(1, 1)


@dataclass(slots=True)
class Node:
    """One node of the text. An alias is represented by the node it refers to, so a node may occur several times."""

    position: Position
    kind: type[Event]
    scalar: Value = None
    text: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    complete: bool = False


class NodeReader:
    """Turns events into nodes. Errors that do not prevent further parsing are collected instead of raised."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._events: Iterator[Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Node] = {}
        self.diagnostics: list[Diagnostic] = []

    def top(self) -> Node | None:
        """Return the top node, or None if the text is empty."""
        node: Node | None = None
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

    def _node(self, event: Event, depth: int) -> Node:
        position = _event_position(event)
        if depth > MAX_DEPTH:
            self._add_diagnostic(position, TOO_DEEP)
            raise ConfigurationError(self.diagnostics)
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor or "", position)
        node = Node(position, type(event))
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

    def _anchor(self, event: Event, node: Node) -> None:
        name = getattr(event, "anchor", None)
        if name is None:
            return
        if name in self._anchors:
            self._add_diagnostic(node.position, f"the anchor &{name} is defined twice", "give it another name")
        self._anchors[name] = node

    def _alias(self, name: str, position: Position) -> Node:
        node = self._anchors.get(name)
        if node is None:
            remedy = did_you_mean(name, self._anchors) or "define it earlier with &, or quote a text that starts with *"
            self._add_diagnostic(position, f"no anchor &{name} before this alias", remedy)
            return Node(position, ScalarEvent, complete=True)
        if not node.complete:
            self._add_diagnostic(
                position, f"the alias *{name} is inside the node that it refers to", "remove the cycle"
            )
            return Node(position, ScalarEvent, complete=True)
        return node

    def _check_tag(self, event: Event, position: Position) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and tag not in _TAGS[type(event)]:
            short_tag = tag.replace(_TAG, "!!")
            self._add_diagnostic(position, f"unknown tag {quoted(short_tag)}", "write the plain value without a tag")


def _event_position(event: Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else START_POSITION


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


_SYNTAX: tuple[tuple[str, str, str | None], ...] = (
    # libyaml's own limit. Newer versions can reach it before our check does, because their scanner reads ahead.
    ("maximum nesting depth", TOO_DEEP, "a configuration needs a few levels"),
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


def syntax_diagnostic(error: yaml.YAMLError, name: str, text: str) -> Diagnostic:
    """Return the diagnostic for PyYAML's error, with a remedy for the common mistakes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "it cannot be read as YAML")
    position = Position(mark.line + 1, mark.column + 1) if mark else START_POSITION
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
