"""Recovery after a lost callback response: maps a rotated session ID and a provider login to its successor session.

Connecting a bank gives the session a new ID and invalidates the old one, to prevent session fixation. If the response
is lost, for example in a tunnel or because of a reload, the browser holds the old ID and no browser holds the new one.
All banks of that owner would be permanently unreachable.

A recovery entry is therefore stored under the digest of the old ID and of the login that was connected. It contains the
owner and the session that replaced the old one, and grants no access by itself. It is found only by signing in to that
bank again with the same login, which an attacker who planted the session ID cannot do. It leads to that one session or
to none: the session that later replaced *that* session may contain connections of another person.
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
"""Seconds for which an entry is kept: the time within which a user whose sign-in seems to have failed tries again."""

Login = tuple[str, ...]
"""Identifies one login at one bank."""


@dataclass(frozen=True, slots=True)
class RecoveryEntry:
    """A stored recovery entry. `session` is the ID of the session that replaced the old one."""

    owner: str
    session: str


class SessionRecovery:
    """Stores and finds recovery entries. Methods raise `StoreUnavailable`."""

    def __init__(self, store: EncryptedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def store(self, dead: str, login: Login, session: Session) -> None:
        """Record that `session` replaced the session with the ID `dead` because `login` was connected."""
        key = _key(dead, login)
        document = {"format": FORMAT, "owner": session.owner, "session": session.id}
        body = json.dumps(document, separators=(",", ":")).encode()
        await self._store.delete(KIND, key)
        await self._store.put(Record(KIND, key, body, expires_at=self._clock() + ENTRY_LIFETIME))

    async def find(self, dead: str, login: Login) -> RecoveryEntry | None:
        """Return the entry, or None if there is none, it cannot be decoded, or it was written by a newer version.

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
