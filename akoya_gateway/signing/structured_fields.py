"""Writes the gateway's RFC 9651 dictionaries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from akoya_gateway.secret import Secret
from akoya_gateway.signing.claims import ConnectionClaim

_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*+")
_STRING = re.compile(r"[\x20-\x7e]*+")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*+")


def strings(passed: Sequence[tuple[str, Secret]]) -> str:
    """Return the dictionary `mikomo="eyJ...", second-bank="eyJ..."`, in the given order.

    Raises:
        ValueError: A key is not valid, or a string is not visible ASCII (RFC 9651).
    """
    members: list[str] = []
    for key, secret in passed:
        text = secret.reveal()
        if not _KEY.fullmatch(key) or not _STRING.fullmatch(text):
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
        if not _KEY.fullmatch(one.connector) or not _TOKEN.fullmatch(one.state):
            raise ValueError(f"connector {one.connector!r} with state {one.state!r} does not fit into a dictionary")
        logins.setdefault(one.connector, []).append(f'{one.state};expires={one.expires_at};id="{one.id}"')
    return ", ".join(
        f"{connector}={states[0]}" if len(states) == 1 else f"{connector}=({' '.join(states)})"
        for connector, states in logins.items()
    )
