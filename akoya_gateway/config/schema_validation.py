"""Validates a document against the JSON Schema (2020-12) and reports violations in plain English.

Besides the standard keywords the schema has three annotations for the messages: `x-expected` (a description of valid
values), `x-keys` (the form of names that the operator chooses) and `x-secret` (never show the value).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from akoya_gateway.config.diagnostics import Diagnostic, Path, did_you_mean, quoted
from akoya_gateway.config.document import Document, kind_of
from akoya_gateway.config.schema_file import schema_text

_USERINFO = re.compile(r"//.*@", re.DOTALL)
"""Matches up to the last `@`: a password that is not percent-encoded may contain any other delimiter."""
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)(?::?-.*)?\}?")
"""Matches a variable as in a shell or a Compose file: `$NAME`, `${NAME}`, `${NAME:-default}`."""
_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
_BOUNDS = {
    "minimum": "must be {} or more",
    "maximum": "must be {} or less",
    "exclusiveMinimum": "must be more than {}",
    "minItems": "must have at least {} item",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} entry",
    "maxProperties": "must have at most {} entries",
    "maxLength": "must have at most {} characters",
}
_WHOLE_VALUE_KEYWORDS = ("type", "const", "enum", "anyOf", "oneOf", "pattern")
"""Keywords that concern the value as a whole. If one of them is violated, the value's other errors are not reported."""


def load_schema() -> dict[str, Any]:
    """Return the parsed schema."""
    loaded: dict[str, Any] = json.loads(schema_text())
    return loaded


@dataclass(frozen=True, slots=True)
class SchemaResult:
    """Result of schema validation.

    `broken` are the paths with an error: invalid values, unknown keys, and missing required keys. Semantic checks skip
    them, so that each mistake is reported once.
    """

    diagnostics: tuple[Diagnostic, ...]
    broken: frozenset[Path]


def validate_schema(document: Document, schema: dict[str, Any]) -> SchemaResult:
    """Return all violations of the schema, and all texts with control characters."""
    shape = _SchemaValidator(document)
    shape.validate(Draft202012Validator(schema).iter_errors(document.data))
    shape.check_texts(document.data, ())
    return SchemaResult(tuple(shape.diagnostics), frozenset(shape.broken))


class _SchemaValidator:
    def __init__(self, document: Document) -> None:
        self._document = document
        self.diagnostics: list[Diagnostic] = []
        self.broken: set[Path] = set()

    def validate(self, errors: Iterable[ValidationError]) -> None:
        groups: defaultdict[Path, list[ValidationError]] = defaultdict(list)
        for error in errors:
            for plain in _plain(error):
                groups[tuple(plain.absolute_path)].append(plain)
        for path, group in groups.items():
            self._group(path, group, any(other[: len(path)] == path and other != path for other in groups))

    def _group(self, path: Path, group: list[ValidationError], faults_below: bool) -> None:
        """Report the errors of one value."""
        if any(_schema(error).get("x-secret") for error in group):
            self._secret(path, group[0])
            return
        unknown = [error for error in group if error.validator == "additionalProperties"]
        missing = [error for error in group if error.validator == "required"]
        others = [error for error in group if error not in unknown and error not in missing]
        taken: set[str] = set()
        for error in unknown:
            taken |= self._unknown_keys(path, error)
        for error in missing:
            self._missing_key(path, error, taken)
        if others and not unknown and not missing and not faults_below:
            whole = [error for error in others if error.validator in _WHOLE_VALUE_KEYWORDS]
            self._value(path, (whole or others)[0])

    def _add(self, path: Path, message: str, remedy: str | None = None, *, at_key: bool = False) -> None:
        self.broken.add(path)
        self.diagnostics.append(self._document.diagnostic(path, message, remedy, at_key=at_key))

    def _secret(self, path: Path, error: ValidationError) -> None:
        expected = _schema(error).get("x-expected", "{env: NAME} or {file: path}")
        takes_text = any(branch.get("type") == "string" for branch in _schema(error).get("anyOf", ()))
        if isinstance(error.instance, str) and error.validator in ("type", "anyOf", "oneOf") and not takes_text:
            self._add(path, "a secret must not be written in this file", f"use {expected}")
        else:
            self._add(path, f"expected {expected}")

    def _unknown_keys(self, path: Path, error: ValidationError) -> set[str]:
        """Report the unknown keys of a mapping, and return the known keys that were probably meant."""
        known = list(_schema(error).get("properties", {}))
        patterns = [re.compile(pattern) for pattern in _schema(error).get("patternProperties", {})]
        meant: set[str] = set()
        for key in _mapping(error):
            if key in known or any(pattern.search(key) for pattern in patterns):
                continue
            here = (*path, key)
            if naming := _schema(error).get("x-keys"):
                self._add(here, f"{quoted(key)} cannot be used as a name", naming, at_key=True)
                continue
            remedy = did_you_mean(key, [name for name in known if name not in _mapping(error)])
            meant |= {name for name in known if remedy and quoted(name) in remedy}
            listed = None if len(known) > 12 else f"known here: {', '.join(known)}"
            self._add(here, f"unknown key {quoted(key)}", remedy or listed, at_key=True)
        return meant

    def _missing_key(self, path: Path, error: ValidationError, taken: set[str]) -> None:
        for key in _values(error):
            if key in _mapping(error) or (*path, key) in self.broken:
                continue
            self.broken.add((*path, key))
            if key in taken:
                continue
            examples = _schema(error).get("properties", {}).get(key, {}).get("examples", [])
            remedy = f"such as `{key}: {flow(examples[0])}`" if examples else None
            self.diagnostics.append(self._document.diagnostic(path, f'"{key}" is missing', remedy, at_key=True))

    def _value(self, path: Path, error: ValidationError) -> None:
        schema, value = _schema(error), error.instance
        if error.validator in _BOUNDS:
            self._add(path, _BOUNDS[str(error.validator)].format(error.validator_value))
        elif error.validator == "uniqueItems":
            self._add(path, "an item appears more than once", "remove one")
        elif error.validator in ("enum", "const"):
            choices = _values(error)
            choices = [choice for choice in choices if choice is not None]
            remedy = did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
            one_of = "one of " if len(choices) > 1 else ""
            self._add(path, f"expected {one_of}{', '.join(map(str, choices))}, not {_display(value)}", remedy)
        elif value is None:
            self._add(path, f"expected {_expected(schema)}, but nothing is given", "add it, or remove the key")
        else:
            self._add(path, f"expected {_expected(schema)}, not {_display(value)}", _quotes(value, schema))

    def check_texts(self, value: Any, path: Path) -> None:
        """Report texts that are not what their author meant.

        Those are names of variables, and texts with line breaks or other control characters: values are used in
        headers, URLs and logs.
        """
        if isinstance(value, dict):
            for key, below in value.items():
                if _CONTROL.search(key):
                    self._text((*path, key))
                else:
                    self.check_texts(below, (*path, key))
        elif isinstance(value, list):
            for index, below in enumerate(value):
                self.check_texts(below, (*path, index))
        elif isinstance(value, str) and _CONTROL.search(value):
            self._text(path)
        elif isinstance(value, str) and (variable := _VARIABLE.fullmatch(value)) and path not in self.broken:
            remedy = f"write {{env: {variable[1]}}} for a client_id or secret, and the value itself for anything else"
            self._add(path, "variables are not replaced in this file", remedy)

    def _text(self, path: Path) -> None:
        if not any(path[:length] in self.broken for length in range(len(path) + 1)):
            self._add(path, "a line end or control character in the text", "remove it")


def _plain(error: ValidationError) -> Iterator[ValidationError]:
    """Yield the error, or the errors of the branch that was meant if the schema is a choice.

    That is the branch for the type of the value, if there is exactly one.
    """
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    branches: defaultdict[Any, list[ValidationError]] = defaultdict(list)
    for below in error.context:
        branches[below.schema_path[0]].append(below)
    fitting = [
        branch for branch in branches.values() if not any(each.validator == "type" and not each.path for each in branch)
    ]
    structured = isinstance(error.instance, dict | list)
    if len(fitting) == 1 and (structured or len(branches) == 1):
        for each in fitting[0]:
            yield from _plain(each)
    elif len(fitting) == 1 and "x-expected" not in _schema(error):
        yield from fitting[0]
    elif "x-expected" not in _schema(error) and not structured:
        # The alternative is always null: report what the other branch expects.
        yield next(each for each in error.context if each.validator_value != "null")
    else:
        yield error


def _schema(error: ValidationError) -> dict[str, Any]:
    return error.schema if isinstance(error.schema, dict) else {}


def _mapping(error: ValidationError) -> dict[str, Any]:
    return error.instance if isinstance(error.instance, dict) else {}


def _values(error: ValidationError) -> list[Any]:
    """Return the values of the keyword: the names of `required`, the choices of `enum`, or the one value of `const`."""
    return error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]


def _expected(schema: dict[str, Any]) -> str:
    if "x-expected" in schema:
        return str(schema["x-expected"])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    descriptions = [_KINDS[kind] for kind in kinds if kind in _KINDS]
    return " or ".join(descriptions) or "something else"


def _display(value: Any) -> str:
    if isinstance(value, dict | list):
        return kind_of(value)
    return quoted(_USERINFO.sub("//...@", value) if isinstance(value, str) else value)


def _quotes(value: Any, schema: dict[str, Any]) -> str | None:
    """Return a remedy if the value looks like `{connector}` without quotes, which is a mapping in YAML."""
    if isinstance(value, dict) and len(value) == 1 and list(value.values()) == [None] and '"{' in _expected(schema):
        return 'put it in quotes: "{' + str(next(iter(value)))[:60] + '}"'
    return None


def flow(value: Any) -> str:
    """Format an example value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and not value.startswith(("{", "#")):
        return value
    return json.dumps(value)
