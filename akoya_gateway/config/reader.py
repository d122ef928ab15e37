"""Typed access to a document that has been checked against the schema.

Values get their defaults from the schema, the only place where defaults are defined. Diagnostics get the position of
the value. A value that `schema_validation.validate_schema` reported as broken is treated as absent, so that no error is
reported twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from akoya_gateway.config.diagnostics import Diagnostic, Path, did_you_mean, quoted
from akoya_gateway.config.document import Document
from akoya_gateway.config.model import Bytes, Seconds
from akoya_gateway.config.value_parsers import Url, parse_duration, parse_size, parse_url

ALL_SECRETS: tuple[Path, ...] = ((),)
"""Read every secret."""
NO_SECRETS: tuple[Path, ...] = ()
"""Read the file itself only."""


@dataclass(slots=True)
class DocumentReader:
    """The document, its schema and the collected diagnostics, shared by all nodes.

    `broken` are the paths for which an error has already been reported. Relative file names are resolved against
    `folder`.
    """

    document: Document
    schema: Mapping[str, Any]
    broken: frozenset[Path]
    environ: Mapping[str, str] = field(repr=False)
    folder: FilePath
    secrets: tuple[Path, ...] = ALL_SECRETS
    """Secrets below these paths are read from environment variables and files. Others are treated as absent."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)

    def top(self) -> Node:
        """Return the node of the whole document."""
        return Node(self, (), self.document.data, self.schema)

    def reads(self, path: Path) -> bool:
        """Return True if secrets at this path are read."""
        return any(path[: len(above)] == above for above in self.secrets)

    def resolve(self, schema: Mapping[str, Any], value: Any = None) -> Mapping[str, Any]:
        """Return the schema with `$ref` followed. For a choice, return its first branch that is a mapping or a list.

        A choice without such a branch is returned as it is. For a choice by a key (`if`), return the branch of `value`.
        """
        if "if" in schema:
            keys = schema["if"]["required"]
            has_keys = isinstance(value, dict) and all(key in value for key in keys)
            schema = schema["then" if has_keys else "else"]
        while "$ref" in schema:
            found = self.schema["$defs"][schema["$ref"].rpartition("/")[2]]
            schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
        for branch in schema.get("anyOf", ()):
            resolved = self.resolve(branch)
            if resolved.get("type") in ("object", "array"):
                return resolved
        return schema


@dataclass(frozen=True, slots=True)
class Node:
    """One value with its path and its schema."""

    reader: DocumentReader
    path: Path
    value: Any
    schema: Mapping[str, Any]

    def error(self, message: str, remedy: str | None = None, *, key: str | None = None, at_key: bool = False) -> None:
        """Report an error at this node, or at its child `key`.

        Args:
            message: what is wrong.
            remedy: what to do about it.
            key: the child that the error is about; it may be missing.
            at_key: if True, the position is that of the key instead of the value.
        """
        path = self.path if key is None else (*self.path, key)
        self.reader.diagnostics.append(self.reader.document.diagnostic(path, message, remedy, at_key=at_key))

    def warn(self, message: str, remedy: str | None = None, *, key: str | None = None) -> None:
        """Report a warning at the key of this node, or of its child `key`."""
        path = self.path if key is None else (*self.path, key)
        self.reader.warnings.append(self.reader.document.diagnostic(path, message, remedy, at_key=True))

    def is_present(self, key: str) -> bool:
        """Return True if the key is in the file, even if its value is invalid."""
        return key in self.value or (*self.path, key) in self.reader.broken

    def is_missing(self, key: str) -> bool:
        """Return True if the key is absent or null and no error has been reported for it."""
        return self.value.get(key) is None and (*self.path, key) not in self.reader.broken

    def get(self, key: str) -> Node | None:
        """Return the node of a key, or None if it is absent, null or broken."""
        path = (*self.path, key)
        value = self.value.get(key)
        if value is None or path in self.reader.broken:
            return None
        return Node(self.reader, path, value, self._below(key, value))

    def section(self, key: str) -> Node:
        """Return the node of a mapping. It is empty if the key is absent, null or broken."""
        return self.get(key) or Node(self.reader, (*self.path, key), {}, self._below(key))

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Iterate over the keys and nodes of a mapping whose keys are names chosen by the operator."""
        for key in self.value:
            if node := self.get(key):
                yield key, node

    def items(self) -> Iterator[Node]:
        """Iterate over the items of a list. A single value is treated as a list of one item."""
        if not isinstance(self.value, list):
            yield self
            return
        schema = self.reader.resolve(self.schema.get("items", {}))
        for index, value in enumerate(self.value):
            if (*self.path, index) not in self.reader.broken and value is not None:
                yield Node(self.reader, (*self.path, index), value, schema)

    def plain(self, key: str) -> Any:
        """Return the value of a key as it is in the YAML, or the default from the schema."""
        node = self.get(key)
        return self._property(key).get("default") if node is None else node.value

    def seconds(self, key: str, *, zero: bool = False) -> Seconds:
        """Return the duration of a key. Report an error if it is 0, unless `zero` is True."""
        seconds = parse_duration(self.plain(key))
        if not seconds and not zero:
            self.error("must be more than 0", key=key)
        return seconds

    def bytes(self, key: str) -> Bytes:
        """Return the size of a key in bytes."""
        return parse_size(self.plain(key))

    def url(self, key: str, *, private: bool = True) -> Url | None:
        """Parse the URL of a key strictly. Return None if it is absent, or after reporting an error.

        If `private` is True, the URL must use https, or http on a loopback address.
        """
        node = self.get(key)
        if node is None:
            return None
        try:
            found = parse_url(node.value)
        except ValueError as error:
            node.error(str(error))
            return None
        if private and not found.secure:
            node.error("plain http is accepted for loopback addresses only", "use https")
            return None
        return found

    def _property(self, key: str) -> Mapping[str, Any]:
        schema = self.schema
        found: Mapping[str, Any] = schema.get("properties", {}).get(key, {})
        return found or next(iter(schema.get("patternProperties", {}).values()), {})

    def _below(self, key: str, value: Any = None) -> Mapping[str, Any]:
        return self.reader.resolve(self._property(key), value)


def reference(node: Node, key: str, names: Node, what: str) -> str | None:
    """Return the name under `key` if it is defined in `names`, or report an error and return None.

    Names whose definition is broken count as defined. Nothing is reported if the key is missing or `names` is broken.

    Args:
        node: the mapping that contains the reference.
        key: the key of the reference.
        names: the mapping that defines the names.
        what: the kind of object that is named, for the message.
    """
    below = node.get(key)
    if below is None or names.path in node.reader.broken:
        return None
    name: str = below.value
    if name in names.value:
        return name
    remedy = did_you_mean(name, names.value) or f"known: {', '.join(map(quoted, names.value)) or 'none'}"
    below.error(f"no {what} named {quoted(name)}", remedy)
    return None
