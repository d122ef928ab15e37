"""Generates `docs/configuration.md` from the schema.

Run `python -m akoya_gateway.config.reference > docs/configuration.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from akoya_gateway.config.presets import DEFAULT_ERRORS, PRESETS, Preset
from akoya_gateway.config.schema_validation import flow, load_schema

_INTRODUCTION = """# Configuration

Generated from `schema/gateway.schema.json` by `python -m akoya_gateway.config.reference`. Change the schema, not this
page.

One file, `gateway.yaml`. `akoya-gateway check` finds everything that is wrong with it, with line and column. Its first
line `# yaml-language-server: $schema=...` lets editors complete and explain; `akoya-gateway schema` prints the schema.

- **Durations** have a unit: `500ms`, `5s`, `15m`, `12h`, `30d`.
- **Sizes** are bytes, or `32KiB`, `10MB` and so on.
- **Secrets** are never written in the file but referred to: `{env: NAME}` or `{file: path}`. They are read at start and
  at every reload.
- **File names** are relative to the folder of the file.
- **Defaults** of `null` mean that the key is absent.
- **Strings** follow YAML 1.2: `on`, `no` and `12:30` are strings. Only `true` and `false` are booleans.
"""


def reference(schema: Mapping[str, Any]) -> str:
    """Return the complete page."""
    parts = [_INTRODUCTION]
    first_paths: dict[int, str] = {}
    for title, node in _sections(schema, "", schema, first_paths):
        parts.append(f"## {title}\n" if title else "## Top level\n")
        if (first := first_paths.get(id(node), title)) != title:
            parts.append(f"As [`{first}`](#{first}).\n")
            continue
        if title and node.get("description"):
            parts.append(f"{node['description']}\n")
        parts.append(_table(node, schema))
    parts.append(_presets())
    return "\n".join(parts)


def _presets() -> str:
    lines = ["## Presets\n", "What Akoya documents; every value can be overridden. No `jwks_uri` is documented.\n"]
    lines += [f"| | {' | '.join(f'`{name}`' for name in PRESETS)} |", "|---|---|---|"]
    for field in fields(Preset):
        values = (flow(getattr(preset, field.name)) for preset in PRESETS.values())
        lines.append(f"| `{field.name}` | {' | '.join(f'`{value}`' for value in values)} |")
    lines += ["\nThe meaning of token endpoint errors for which the environment's `dialect.errors` has no rule:\n"]
    lines += ["| status | error | means |", "|---|---|---|"]
    for rule in DEFAULT_ERRORS:
        lines.append(f"| {rule.status or 'any'} | {rule.error or 'any'} | `{rule.category}` |")
    return "\n".join(lines) + "\n"


def _sections(
    node: Mapping[str, Any], path: str, schema: Mapping[str, Any], first_paths: dict[int, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the mappings with fixed keys, in the order of the schema, as pairs of path and schema.

    `first_paths` maps each mapping to the path where it occurred first. Its children are listed only there.
    """
    yield path, node
    if first_paths.setdefault(id(node), path) != path:
        return
    for name, below in node["properties"].items():
        here = f"{path}.{name}" if path else name
        for suffix, found in _mappings(below, schema):
            if "env" not in found.get("properties", {}) or "id" in found["properties"]:
                yield from _sections(found, here + suffix, schema, first_paths)


def _mappings(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the mappings that a value may be or contain, each with the suffix of its path."""
    node = _resolve(node, schema)
    for branch in node.get("anyOf", ()):
        yield from _mappings(branch, schema)
    if "if" in node:
        yield from _mappings(node["else"], schema)
        (key,) = node["if"]["required"]
        yield from ((f" with {key}{suffix}", found) for suffix, found in _mappings(node["then"], schema))
    if "properties" in node:
        yield "", node
    if node.get("type") == "array":
        yield from ((f"[]{suffix}", found) for suffix, found in _mappings(node["items"], schema))
    for below in node.get("patternProperties", {}).values():
        yield from ((f".<name>{suffix}", found) for suffix, found in _mappings(below, schema))


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in node:
        return node
    found: Mapping[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return found


def _table(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    lines = ["| key | what | default | example |", "|---|---|---|---|"]
    for name, below in node["properties"].items():
        default = "required" if name in node.get("required", ()) else _code(below.get("default"))
        what = _cell(below["description"]) + _choices(below, schema)
        lines.append(f"| `{name}` | {what} | {default} | {_code(below['examples'][0])} |")
    return "\n".join(lines) + "\n"


def _choices(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    values = {**_resolve(node, schema), **node}.get("enum")
    if not values:
        return ""
    return f" One of {', '.join(f'`{value}`' for value in values if value is not None)}."


def _code(value: Any) -> str:
    text = flow(value) if isinstance(value, dict | list) else value if isinstance(value, str) else json.dumps(value)
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference(load_schema()))
