"""A walk over the judged document: values with their defaults from the schema, and faults with their places.

The schema is the only home of defaults. What `schema_validation.validate_schema` called broken reads as absent, so
nothing is complained about twice.
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


@dataclass(slots=True)
class DocumentReader:
    """What every part of the meaning shares. `folder` is what relative file names are relative to."""

    document: Document
    schema: Mapping[str, Any]
    broken: frozenset[Path]
    environ: Mapping[str, str] = field(repr=False)
    folder: FilePath
    secrets: bool = True
    """False: environment variables and files of secrets are not looked at."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)

    def top(self) -> Node:
        return Node(self, (), self.document.data, self.schema)

    def resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema behind `$ref` and, where null is the alternative, behind the choice."""
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
    """One value, where it stands, and what the schema says of it."""

    reader: DocumentReader
    path: Path
    value: Any
    schema: Mapping[str, Any]

    def error(self, message: str, remedy: str | None = None, *, key: str | None = None, at_key: bool = False) -> None:
        """A mistake here, or at `key` below."""
        path = self.path if key is None else (*self.path, key)
        self.reader.diagnostics.append(self.reader.document.diagnostic(path, message, remedy, at_key=at_key))

    def warn(self, message: str, remedy: str | None = None, *, key: str | None = None) -> None:
        path = self.path if key is None else (*self.path, key)
        self.reader.warnings.append(self.reader.document.diagnostic(path, message, remedy, at_key=True))

    def is_present(self, key: str) -> bool:
        """Whether the operator wrote the key, also if its value is no good."""
        return key in self.value or (*self.path, key) in self.reader.broken

    def is_missing(self, key: str) -> bool:
        """Absent or null, and nothing was said about it yet."""
        return self.value.get(key) is None and (*self.path, key) not in self.reader.broken

    def get(self, key: str) -> Node | None:
        """The value of a key, or None if it is absent, null or broken."""
        path = (*self.path, key)
        value = self.value.get(key)
        if value is None or path in self.reader.broken:
            return None
        return Node(self.reader, path, value, self._below(key))

    def section(self, key: str) -> Node:
        """A mapping below; an absent one is empty."""
        return self.get(key) or Node(self.reader, (*self.path, key), {}, self._below(key))

    def entries(self) -> Iterator[tuple[str, Node]]:
        """The keys of a mapping whose names the operator chose."""
        for key in self.value:
            if node := self.get(key):
                yield key, node

    def items(self) -> Iterator[Node]:
        """The items of a list; a single value counts as a list of one."""
        if not isinstance(self.value, list):
            yield self
            return
        schema = self.reader.resolve(self.schema.get("items", {}))
        for index, value in enumerate(self.value):
            if (*self.path, index) not in self.reader.broken and value is not None:
                yield Node(self.reader, (*self.path, index), value, schema)

    def plain(self, key: str) -> Any:
        """The value of a key as YAML has it, or the schema's default."""
        node = self.get(key)
        return self._property(key).get("default") if node is None else node.value

    def seconds(self, key: str, *, zero: bool = False) -> Seconds:
        """A duration; must be more than nothing unless `zero`."""
        seconds = parse_duration(self.plain(key))
        if not seconds and not zero:
            self.error("must be more than 0", key=key)
        return seconds

    def bytes(self, key: str) -> Bytes:
        return parse_size(self.plain(key))

    def url(self, key: str, *, private: bool = True) -> Url | None:
        """A URL that is read strictly; `private`: https, or http on loopback. None (and a fault) if it is not."""
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

    def _below(self, key: str) -> Mapping[str, Any]:
        return self.reader.resolve(self._property(key))


def reference(node: Node, key: str, names: Node, what: str) -> str | None:
    """The name under `key` if something has it; names that are there but broken count."""
    below = node.get(key)
    if below is None or names.path in node.reader.broken:
        return None
    name: str = below.value
    if name in names.value:
        return name
    remedy = did_you_mean(name, names.value) or f"known: {', '.join(map(quoted, names.value)) or 'none'}"
    below.error(f"no {what} named {quoted(name)}", remedy)
    return None
