"""RFC 9651 dictionaries: writes the gateway's own, and parses a client's just enough to remove one member."""

from __future__ import annotations

import re
from collections.abc import Sequence

from akoya_gateway.secret import Secret
from akoya_gateway.signing.claims import ConnectionClaim

_KEY = r"[a-z*][a-z0-9_\-.*]*+"
_BARE_ITEM = "|".join(
    (
        r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"',
        r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*+",
        r":(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?:",
        r"@?-?[0-9]{1,15}+(?:\.[0-9]{1,3}+)?",
        r"\?[01]",
        r'%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"',
    )
)
_PARAMETERS = rf"(?:;[ ]*+{_KEY}(?:=(?:{_BARE_ITEM}))?)*+"
_ITEM = rf"(?:{_BARE_ITEM}){_PARAMETERS}"
_INNER_LIST = rf"\([ ]*+(?:{_ITEM}(?:[ ]++{_ITEM})*+)?[ ]*+\){_PARAMETERS}"
_MEMBER = re.compile(rf"({_KEY})(?:=(?:{_INNER_LIST}|{_ITEM})|{_PARAMETERS})")
_SEPARATOR = re.compile(r"[ \t]*+,[ \t]*+")
_DICTIONARY_KEY = re.compile(_KEY)
_STRING = re.compile(r"[\x20-\x7e]*+")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*+")


def members(value: str) -> list[tuple[str, str]] | None:
    """Return the members of a dictionary as (key, text), or None if it is invalid (RFC 9651 section 4.2.2).

    The order and duplicate keys are kept.
    """
    found: list[tuple[str, str]] = []
    text = value.strip(" ")
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        found.append((member[1], member[0]))
        at = member.end()
        if at == len(text):
            return found
        separator = _SEPARATOR.match(text, at)
        if separator is None or separator.end() == len(text):
            return None
        at = separator.end()
    return found


def without(value: bytes, label: str) -> bytes:
    """Return the dictionary field without the member `label`.

    The value is returned unchanged if it has no such member. The result is empty if no member is left, if the value
    is not a dictionary, or if another label occurs twice.
    """
    found = members(value.decode("latin-1"))
    if found is None:
        return b""
    kept = [text for key, text in found if key != label]
    if len({key for key, _ in found if key != label}) < len(kept):
        return b""
    return value if len(kept) == len(found) else ", ".join(kept).encode("latin-1")


def strings(passed: Sequence[tuple[str, Secret]]) -> str:
    """Return the dictionary `mikomo="eyJ...", second-bank="eyJ..."`, in the given order.

    Raises:
        ValueError: A key is not valid, or a string is not visible ASCII (RFC 9651).
    """
    members: list[str] = []
    for key, secret in passed:
        text = secret.reveal()
        if not _DICTIONARY_KEY.fullmatch(key) or not _STRING.fullmatch(text):
            raise ValueError(f"the value of {key!r} does not fit into a dictionary")
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        members.append(f'{key}="{escaped}"')
    return ", ".join(members)


def connections(passed: Sequence[ConnectionClaim]) -> str:
    """Return the dictionary `mikomo=live;expires=1700000000;id="g_..."`, in the given order.

    Several logins at one connector become an inner list.

    Raises:
        ValueError: A connector is not a valid key, or a state not a valid token (RFC 9651).
    """
    logins: dict[str, list[str]] = {}
    for one in passed:
        if not _DICTIONARY_KEY.fullmatch(one.connector) or not _TOKEN.fullmatch(one.state):
            raise ValueError(f"connector {one.connector!r} with state {one.state!r} does not fit into a dictionary")
        logins.setdefault(one.connector, []).append(f'{one.state};expires={one.expires_at};id="{one.id}"')
    return ", ".join(
        f"{connector}={states[0]}" if len(states) == 1 else f"{connector}=({' '.join(states)})"
        for connector, states in logins.items()
    )
