"""Structured field dictionaries: a strict parser, and a canonical serializer.

They know the types of RFC 8941, on which RFC 9421 is based. The dates and display strings that RFC 9651 adds are
refused, because other libraries refuse them too, or parse them differently.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from akoya_verify.result import NotVerified


class Token(str):
    """A token, as distinct from a string."""

    __slots__ = ()


BareItem = str | Token | bytes | int | Decimal | bool
Parameters = dict[str, BareItem]


@dataclass(frozen=True, slots=True)
class Item:
    """A value with its parameters."""

    value: BareItem
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class InnerList:
    """A list of items with parameters of its own."""

    items: tuple[Item, ...]
    parameters: Parameters


Member = Item | InnerList


def parse_dictionary(text: str, field: str) -> dict[str, Member]:
    """Parse a dictionary (RFC 9651 section 4.2.2).

    In contrast to the RFC, a repeated key or parameter is an error and does not overwrite the first one, so that two
    parsers cannot get different results.

    Raises:
        NotVerified: The text is malformed or has duplicates. The detail names `field`.
    """
    reader = _Reader(text.strip(" "), field)
    found: dict[str, Member] = {}
    while not reader.done:
        key = reader.key()
        if key in found:
            raise NotVerified("duplicate", f"{field} has two members {key!r}")
        found[key] = reader.member()
        if not reader.done:
            reader.take(_COMMA, "a comma")
            if reader.done:
                raise reader.fault("a member after the comma")
    return found


def serialize_inner_list(value: InnerList) -> str:
    """Serialize an inner list (RFC 9651 section 4.1.1.1)."""
    items = " ".join([_bare(item.value) + _parameters(item.parameters) for item in value.items])
    return f"({items}){_parameters(value.parameters)}"


def serialize_dictionary(members: Mapping[str, Member]) -> str:
    """Serialize a dictionary (RFC 9651 section 4.1.2)."""
    return ", ".join(
        f"{key}={serialize_inner_list(member)}"
        if isinstance(member, InnerList)
        else f"{key}={_bare(member.value)}{_parameters(member.parameters)}"
        for key, member in members.items()
    )


def _parameters(parameters: Parameters) -> str:
    if not parameters:
        return ""
    return "".join(f";{key}" if value is True else f";{key}={_bare(value)}" for key, value in parameters.items())


def _bare(value: BareItem) -> str:
    if type(value) is str:
        return _string(value)
    if isinstance(value, bool):
        return f"?{int(value)}"
    if isinstance(value, Token | int | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode()}:"
    return _string(value)


def _string(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*+")
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")
_SPACES = re.compile(r" *+")
_STRING = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+)"')
_BYTES = re.compile(r":([A-Za-z0-9+/]*+={0,2}):")
_DECIMAL = re.compile(r"-?[0-9]{1,12}+\.[0-9]{1,3}+(?![0-9.])")
_INTEGER = re.compile(r"-?[0-9]{1,15}+(?![0-9.])")
_BOOLEAN = re.compile(r"\?([01])")
# Fast path: covered components are nearly always names without parameters, separated by one space.
_PLAIN_LIST = re.compile(r'"([a-z0-9@\-]++(?:" "[a-z0-9@\-]++)*+)"\)')
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*+")


class _Reader:
    """Parses the text in one pass."""

    def __init__(self, text: str, field: str) -> None:
        self._text = text
        self._field = field
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._text)

    def fault(self, wanted: str) -> NotVerified:
        return NotVerified("malformed", f"{self._field}: expected {wanted} at character {self._at + 1}")

    def take(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self.fault(wanted)
        self._at = match.end()
        return match

    def sees(self, sign: str) -> bool:
        """Skip `sign` and return True if it is next."""
        if not self._text.startswith(sign, self._at):
            return False
        self._at += 1
        return True

    def key(self) -> str:
        return self.take(_KEY, "a key")[0]

    def member(self) -> Member:
        if not self.sees("="):
            return Item(True, self.parameters())
        return self.inner_list() if self.sees("(") else Item(self.bare_item(), self.parameters())

    def inner_list(self) -> InnerList:
        plain = _PLAIN_LIST.match(self._text, self._at)
        if plain is not None:
            self._at = plain.end()
            return InnerList(tuple(Item(name, {}) for name in plain[1].split('" "')), self.parameters())
        items: list[Item] = []
        while True:
            spaces = self.take(_SPACES, "")[0]
            if self.sees(")"):
                return InnerList(tuple(items), self.parameters())
            if items and not spaces:
                raise self.fault("a space or a closing parenthesis")
            items.append(Item(self.bare_item(), self.parameters()))

    def parameters(self) -> Parameters:
        found: Parameters = {}
        while self.sees(";"):
            self.take(_SPACES, "")
            key = self.key()
            if key in found:
                raise NotVerified("duplicate", f"{self._field} has two parameters {key!r}")
            found[key] = self.bare_item() if self.sees("=") else True
        return found

    def bare_item(self) -> BareItem:
        start = self._text[self._at : self._at + 1]
        if start == '"':
            text = self.take(_STRING, "a string")[1]
            return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text
        if start == ":":
            return self._octets(self.take(_BYTES, "a byte sequence")[1])
        if start == "?":
            return self.take(_BOOLEAN, "a boolean")[1] == "1"
        if start == "-" or start.isdigit():
            decimal = _DECIMAL.match(self._text, self._at)
            if decimal is None:
                return int(self.take(_INTEGER, "a number")[0])
            self._at = decimal.end()
            return Decimal(decimal[0])
        return Token(self.take(_TOKEN, "a value")[0])

    def _octets(self, text: str) -> bytes:
        try:
            octets = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise self.fault("base64 before this place") from None
        # Stricter than RFC 9651 section 4.2.7: non-zero padding bits would allow many spellings of one signature.
        if base64.b64encode(octets).decode() != text:
            raise self.fault("canonical base64 before this place")
        return octets
