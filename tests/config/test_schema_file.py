"""The schema itself: complete, closed to unknown keys, and consistent with its own examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

from akoya_gateway.config.schema_validation import load_schema

SCHEMA = load_schema()


def _objects(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield where, node
        for key, value in node.items():
            if key not in ("examples", "default"):
                yield from _objects(value, f"{where}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _objects(value, f"{where}/{index}")


OBJECTS = dict(_objects(SCHEMA))
PROPERTIES = {
    f"{where}/{name}": (name, schema, name in node.get("required", ()))
    for where, node in OBJECTS.items()
    for name, schema in node.get("properties", {}).items()
}


def test_it_is_a_valid_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")
    assert SCHEMA["$id"]


def test_schema_has_rules_to_check() -> None:
    assert len(OBJECTS) > 15
    assert len(PROPERTIES) > 80


def test_every_object_refuses_unknown_keys() -> None:
    assert [where for where, node in OBJECTS.items() if node["additionalProperties"] is not False] == []


def test_every_property_has_description_default_and_examples() -> None:
    for where, (_, schema, required) in PROPERTIES.items():
        assert schema["description"], where
        assert schema["examples"], where
        # `"default": null` makes yaml-language-server 1.25 fail: a key without a default is absent, which equals null.
        assert schema.get("default", "") is not None, where
        validator = jsonschema.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})
        assert required or "default" in schema or validator.is_valid(None), where


def test_defaults_and_examples_are_valid() -> None:
    for where, (_, schema, _) in PROPERTIES.items():
        validator = jsonschema.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})
        for value in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
            # The default of a section with required keys is null, or omits those keys on purpose.
            assert validator.is_valid(value), (where, value)
