"""Where the holder of a dead session id belongs, should the answer with the new one never have reached them.

A bank that was connected gives the session a new id, and the old one dies with its rights (session fixation). If that
answer is lost on its way, in a tunnel or by a reload, the browser holds the dead id and nobody the living one: all the
banks of that owner would be out of reach for good. So a word is left under the digest of the dead id and of the login
that was connected: the owner, and the session that came of it. It opens nothing by itself. Only who signs in once more
at that bank, with that very login, finds it: whoever planted the id in the browser cannot. And it leads to that session
or nowhere: what was connected in the one that took *its* place may be somebody else's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from akoya_gateway.clock import Clock
from akoya_gateway.sessions.random_tokens import digest
from akoya_gateway.sessions.session import Session
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore

KIND = "forwarding"
FORMAT = 1

ENTRY_LIFETIME = 86_400.0
"""Seconds in which somebody whose sign-in seems to have failed tries again."""

Login = tuple[str, ...]
"""What stands for one login at one bank."""


@dataclass(frozen=True, slots=True)
class RecoveryEntry:
    """`session` is an id."""

    owner: str
    session: str


class SessionRecovery:
    """Raises `StoreUnavailable`."""

    def __init__(self, store: EncryptedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def store(self, dead: str, login: Login, session: Session) -> None:
        """`session` came of the one of the id `dead`, because `login` was connected."""
        key = _key(dead, login)
        document = {"format": FORMAT, "owner": session.owner, "session": session.id}
        body = json.dumps(document, separators=(",", ":")).encode()
        await self._store.delete(KIND, key)
        await self._store.put(Record(KIND, key, body, expires_at=self._clock() + ENTRY_LIFETIME))

    async def find(self, dead: str, login: Login) -> RecoveryEntry | None:
        """A word that cannot be read, or is of a newer release, is as none.

        Also raises `UndecryptableRecord` and `DamagedRecord`.
        """
        record = await self._store.get(KIND, _key(dead, login))
        if record is None:
            return None
        try:
            document: Any = json.loads(record.body)
            return RecoveryEntry(document["owner"], document["session"]) if document["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            return None


def _key(dead: str, login: Login) -> str:
    return digest("akoya-gateway forwarding", json.dumps([dead, *login]))
