"""Invariants for every request that an app receives and every response that a client receives."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from akoya_verify import NotVerified, keys_of, secret_key, verify
from tests.fuzz.wire.scripts import MARK, Person, Script
from tests.fuzz.wire.upstream import Seen
from tests.support.environment import HMAC_SECRET

KEYS = keys_of([secret_key("k1", HMAC_SECRET)])
PASSED = {
    b"akoya-connector",
    b"akoya-id-token",
    b"akoya-expires",
    b"akoya-scope",
    b"akoya-environment",
    b"akoya-owner",
    b"akoya-connections",
    b"akoya-provider",
    b"akoya-grant",
    b"akoya-consent",
    b"akoya-interaction-type",
    b"akoya-last-access",
}

RULES: list[dict[str, Any]] = [
    {"path": "/pub/*", "require": "nothing"},
    {"path": "/bank/{connector}/*", "require": "{connector}", "otherwise": "unauthorized"},
    {"path": "/m/*", "methods": ["GET"], "require": "mikomo", "otherwise": "unauthorized"},
    {"path": "/m/*", "methods": ["POST"], "require": "nothing"},
    {"path": "/notok/*", "require": "any", "pass_token": False, "otherwise": "unauthorized"},
    {"path": "/pass/*", "require": "any", "otherwise": "pass"},
    {"path": "/forb/*", "require": "other", "otherwise": "forbidden"},
    {"path": "/other/*", "require": "any", "otherwise": "unauthorized", "upstream": "other"},
    {"path": "/opub/*", "require": "nothing", "upstream": "other"},
    {"path": "/any/*", "require": "any", "otherwise": "unauthorized"},
]
_ALWAYS, _NEVER = ("bank", "forb", "other", "any"), ("pub", "opub", "notok")


@dataclass
class Book:
    """Which user each token and owner belongs to, and which script sent what.

    `secrets` maps tokens and owners to the name of their user.
    """

    people: tuple[Person, ...]
    cookie_names: tuple[bytes, ...]
    secrets: Mapping[bytes, str]
    scripts: dict[bytes, Script] = field(default_factory=dict)

    def of_request(self, seen: Seen) -> Iterator[str]:
        """Yield violations in a request that an app received."""
        names = [name for name, _ in seen.headers]
        ours = [name for name in names if re.sub(rb"[^a-z0-9]", b"-", name + b"-").startswith(b"akoya-")]
        if set(ours) - PASSED or len(ours) != len(set(ours)):
            yield f"headers that are not the gateway's: {ours}"
        if ours:
            yield from self._signed(seen)
        for value in seen.get(b"cookie"):
            sent = {pair.partition(b"=")[0].strip() for pair in value.split(b";")}
            if sent & set(self.cookie_names):
                yield "the gateway's own cookie"
        yield from self._by_rule(seen, ours)
        yield from self._by_session(seen)

    def _signed(self, seen: Seen) -> Iterator[str]:
        path, _, query = seen.target.partition(b"?")
        authority = seen.get(b"host")[0].decode("latin-1").lower().removesuffix(":80")
        try:
            verify(seen.method.decode(), authority, path.decode(), query.decode(), seen.headers, KEYS, time.time())
        except NotVerified as error:
            yield f"unsigned: {error}"

    def _by_rule(self, seen: Seen, ours: list[bytes]) -> Iterator[str]:
        first = seen.target.split(b"/")[1].decode("latin-1") if seen.target.startswith(b"/") else ""
        has_token = b"akoya-id-token" in ours
        if first not in {str(rule["path"]).split("/")[1] for rule in RULES}:
            yield "a path that no rule allows"
        if (seen.app == "other") != (first in ("other", "opub")):
            yield "the wrong upstream"
        if (first in _ALWAYS or (first == "m" and seen.method == b"GET")) and not has_token:
            yield "no token under a rule that requires a connection"
        if (first in _NEVER or (first == "m" and seen.method == b"POST")) and has_token:
            yield "a token under a rule that releases none"
        if first == "notok" and b"akoya-owner" not in ours:
            yield "no owner under a rule that requires a connection"

    def _by_session(self, seen: Seen) -> Iterator[str]:
        values = [*seen.get(b"akoya-id-token"), *seen.get(b"akoya-owner")]
        marks = set(MARK.findall(seen.wire))
        scripts = [self.scripts[mark] for mark in marks if mark in self.scripts]
        if len(scripts) > 1:
            yield f"bytes of two connections: {marks}"
        for value in values:
            person = self.secrets.get(value)
            if person is None:
                yield "an unknown token or owner"
                continue
            cookie = next(one.secret for one in self.people if one.name == person)
            sent = (
                scripts[0].data if scripts else b"".join(script.data for script in list(self.scripts.values())[-2000:])
            )
            if cookie.lower() not in sent.lower():
                yield f"a token of {person} without that person's session"

    def of_response(self, script: Script, received: bytes) -> Iterator[str]:
        """Yield violations in the bytes that a client received."""
        others = set(MARK.findall(received)) - set(MARK.findall(script.data)) - {script.mark}
        if any(mark in self.scripts for mark in others):
            yield f"bytes of another connection: {others}"
        if received and not received.startswith(b"HTTP/1.1 "):
            yield "no response"
        for value, person in self.secrets.items():
            cookie = next(one.secret for one in self.people if one.name == person)
            if value in received and cookie.lower() not in script.data.lower():
                yield f"a token or owner of {person}"
        if re.search(rb"(?im)^akoya-echo", received):
            yield "an Akoya- header of the app"
