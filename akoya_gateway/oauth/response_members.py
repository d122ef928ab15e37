"""Reads members of a JSON object that may be malformed elsewhere. Their meaning is defined in `oauth.token_messages`.

A rotated refresh token exists in one response only, so an error in another member must not lose it. Reading takes
linear time, and the number of members and their nesting are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from akoya_gateway.oauth.response_body import BLANK

MAX_MEMBERS = 1024
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
_BETWEEN = re.compile(r"\s*")
_MAX_BRACKETS = 256
"""Maximum number of brackets in a member that is parsed, so that its nesting is bounded."""


@dataclass(frozen=True, slots=True)
class Members:
    """Members of a JSON object.

    `fault` says why the text is not one complete object. The values are then those before the error.
    """

    values: Mapping[str, Any] = field(repr=False)
    fault: str | None = None

    def get(self, name: str) -> Any:
        """Return the value of the member, or None."""
        return self.values.get(name)


def read_object(body: bytes, names: frozenset[str], optional: frozenset[str] = frozenset()) -> Members:
    """Read the members called `names` of the JSON object in `body`, UTF-8. Never raises.

    A form (`application/x-www-form-urlencoded`) is read as an object of strings: some older servers respond with one.

    Parsing is strict for these members and tolerant for all others, whose values are skipped by brackets and quotes
    only, however deep, duplicated or malformed they are. If one of the members occurs again, the last value is used, as
    in nearly all parsers, unless it is empty. Two different values are a fault. If one of the `optional` members is
    malformed or has two values, it has the value `UNREADABLE` instead. A member that does not occur may be spelled with
    other separators or in another case, except `error`.
    """
    text = body.decode("utf-8", "replace").strip(BLANK)
    return _Scanner(text, names, optional).read() if _FORM.fullmatch(text) is None else _read_form(text, names)


_FORM = re.compile(r"[\w.~-]+=[!#-;=?-z|~]*", re.ASCII)
"""A form as it is sent: ASCII, and without quotes, angle brackets, braces and white space."""


def _read_form(text: str, names: frozenset[str]) -> Members:
    values: dict[str, Any] = {}
    fault: str | None = None
    try:
        for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_MEMBERS):
            if name in names:
                if values.setdefault(name, value) != value:
                    fault = fault or f"{name} occurs twice"
                values[name] = value
    except ValueError:
        fault = f"more than {MAX_MEMBERS} members"
    return Members(values, fault if values else "not JSON")


def find_member(body: bytes, name: str) -> str | None:
    """Return the string value of the member `name`, wherever it is in the body. Never raises.

    None if it does not occur, or occurs with different values.

    For a body that is not a JSON object: the object may be inside another, inside an array or a string, or after a
    warning that a script has printed.
    """
    text = body.decode("utf-8", "replace")
    quoted = re.compile(rf'"{re.escape(name).replace("_", "[_-]?")}"\s*:\s*("(?:[^"\\]|\\.)*")', re.IGNORECASE)
    for candidate in (text, text.replace('\\"', '"').replace("\\\\", "\\")):
        values = {value for match in quoted.finditer(candidate) if isinstance(value := _loaded(match[1]), str)}
        values.discard("")
        if values:
            return values.pop() if len(values) == 1 else None
    return None


def _letters(name: str) -> str:
    """Return the name in lower case, without blanks, `_` and `-`."""
    return name.strip().lower().replace("_", "").replace("-", "")


def _is_empty(value: object) -> bool:
    return value is None or value == ""


class _Malformed(ValueError):
    pass


class _Scanner:
    """Scans the top level of an object in one pass, in linear time."""

    def __init__(self, text: str, names: frozenset[str], optional: frozenset[str]) -> None:
        self._text = text
        self._names = names
        self._optional = optional
        self._spellings = {_letters(name): name for name in names if name != "error"}
        self._others: dict[str, Any] = {}
        self._at = 0
        self._values: dict[str, Any] = {}
        self._fault: str | None = None

    def read(self) -> Members:
        try:
            self._object()
            if self._at != len(self._text):
                self._fault = "more than one JSON value"
        except _Malformed as malformed:
            self._fault = str(malformed)
        given = {
            name: value for name, value in self._values.items() if name not in self._others or not _is_empty(value)
        }
        return Members({**self._others, **given}, self._fault)

    def _object(self) -> None:
        token = self._next()
        if token != "{":
            raise _Malformed("not a JSON object" if token in ("[", "null") or token[0] == '"' else "not JSON")
        token = self._next()
        for _ in range(MAX_MEMBERS):
            if token == "}":
                return
            if token[0] != '"' or self._next() != ":":
                raise _Malformed("not JSON")
            self._member(token)
            separator = self._next()
            if separator == "}":
                return
            if separator != ",":
                raise _Malformed("not JSON")
            token = self._next()
        raise _Malformed(f"more than {MAX_MEMBERS} members")

    def _member(self, quoted: str) -> None:
        start = self._at
        self._skip_value()
        name = _loaded(quoted)
        if not isinstance(name, str):
            return
        if name not in self._names:
            # Some APIs have `refreshToken` or `Refresh-Token`. An `error` in another spelling is not evaluated.
            name = self._spellings.get(_letters(name), "")
            if name and _is_empty(self._others.get(name)):
                self._others[name] = _loaded(self._text[start : self._at])
            return
        value = _loaded(self._text[start : self._at])
        if name in self._optional:
            self._values[name] = value if self._values.get(name, value) == value else UNREADABLE
            return
        if value is UNREADABLE:
            self._fault = self._fault or f"{name} is not JSON"
            return
        if name in self._values and self._values[name] != value:
            self._fault = self._fault or f"{name} occurs twice"
        # An empty value must not hide a rotated refresh token.
        if not _is_empty(value) or not self._values.get(name):
            self._values[name] = value

    def _skip_value(self) -> None:
        """Skip one value: a string, a literal, or everything up to the bracket that closes the first one."""
        closing: list[str] = []
        while True:
            token = self._next()
            if token in _CLOSES:
                closing.append(_CLOSES[token])
            elif token in ("}", "]"):
                if not closing or closing.pop() != token:
                    raise _Malformed("not JSON")
            elif token in (":", ",") and not closing:
                raise _Malformed("not JSON")
            if not closing:
                return

    def _next(self) -> str:
        blank = _BETWEEN.match(self._text, self._at)
        assert blank is not None
        token = _TOKEN.match(self._text, blank.end())
        if token is None:
            raise _Malformed("not JSON")
        self._at = token.end()
        return token[0]


_CLOSES = {"{": "}", "[": "]"}
UNREADABLE = object()
"""The value of an optional member whose value cannot be read."""


def _loaded(text: str) -> Any:
    """Return the value of one JSON text, or `UNREADABLE` if it is invalid. NaN and Infinity become None.

    Control characters in strings are accepted: a rotated refresh token may end in a line break.
    """
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        return UNREADABLE
    try:
        return json.loads(text, parse_constant=lambda _: None, strict=False)
    except (ValueError, RecursionError):
        return UNREADABLE
