"""Where the holder of a dead session id belongs, should the answer with the new one never have reached them.

A bank that was connected gives the session a new id, and the old one dies with its rights (session fixation). If that
answer is lost on its way, in a tunnel or by a reload, the browser holds the dead id and nobody the living one: all the
banks of that owner would be out of reach for good. So a word is left under the digest of the dead id: the owner, and
the grant that was connected. It opens nothing by itself. Only who signs in once more at that bank, with that very
login, gets the owner back: whoever planted the id in the browser cannot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from akoya_gateway.clock import Clock
from akoya_gateway.sessions.session import Session, id_of
from akoya_gateway.sessions.tokens import is_token
from akoya_gateway.store.record import Record
from akoya_gateway.store.vault import Vault

KIND = "forwarding"
FORMAT = 1

KEPT = 86_400.0
"""Seconds in which somebody whose sign-in seems to have failed tries again."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """`grant` is the id of the grant: it stands for owner, bank and login."""

    owner: str
    grant: str


class Forwardings:
    """Raises `StoreUnavailable`."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    async def leave(self, session: Session, grant: str) -> None:
        """`session` has been replaced, because `grant` was connected."""
        document = {"format": FORMAT, "owner": session.owner, "grant": grant}
        body = json.dumps(document, separators=(",", ":")).encode()
        await self._vault.put(Record(KIND, session.id, body, expires_at=self._clock() + KEPT))

    async def find(self, cookie_value: str) -> Forwarding | None:
        if not is_token(cookie_value):
            return None
        record = await self._vault.get(KIND, id_of(cookie_value))
        document = None if record is None else json.loads(record.body)
        if document is None or document["format"] != FORMAT:
            return None
        return Forwarding(document["owner"], document["grant"])
