"""What users call their logins at a bank: a name they chose, one from the id_token, or a number.

Names chosen by users are in one record for each owner, not in the grants: renaming never competes with a refresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from akoya_gateway.clock import Clock
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.repository import group_of
from akoya_gateway.oauth.id_token import login_name
from akoya_gateway.oauth.untrusted_text import printable
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord

KIND = "login_names"
FORMAT = 1
MAX_LENGTH = 60
"""Maximum number of characters of a name."""

MAX_CONFLICTS = 5
"""Number of lost compare-and-set races after which renaming gives up."""


class LoginNames:
    """Reads and writes the names of logins. Methods raise `StoreUnavailable`.

    A record that cannot be decrypted counts as no names: names are for display only, and the pages on which the user
    chooses or ends a login must work without them. The next `rename` replaces such a record.

    Args:
        lifetime: Seconds for which names are kept after the last change. None: until the logins are disconnected.
    """

    def __init__(self, store: EncryptedStore, clock: Clock, lifetime: float | None) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = lifetime

    async def names(self, owner_grants: OwnerGrants, unnamed: str = "Login %(number)d") -> dict[str, str]:
        """Return a name for each grant, by grant ID. The names of the logins at one bank differ.

        `unnamed` is what a login without a name is called; `%(number)d` is replaced by its number.
        """
        if not owner_grants.grants:
            return {}
        record = await self._read(group_of(owner_grants.owner))
        chosen = {} if record is None else _decode(record.body)
        named: dict[str, str] = {}
        for connector in dict.fromkeys(grant.connector for grant in owner_grants.grants):
            named |= _distinct(reversed(owner_grants.for_connector(connector)), chosen, unnamed)
        return named

    async def rename(self, grant: Grant, name: str, owner_grants: OwnerGrants) -> None:
        """Give the login a name; an empty one removes it. Names of grants that the owner no longer has are dropped."""
        key = group_of(grant.key.owner)
        kept = {each.id for each in owner_grants.grants}
        for _ in range(MAX_CONFLICTS):
            record = await self._read(key, remove=True)
            names = {} if record is None else _decode(record.body)
            names = {id_: text for id_, text in names.items() if id_ in kept} | {grant.id: printable(name, MAX_LENGTH)}
            expires_at = None if self._lifetime is None else self._clock() + self._lifetime
            if await self._replace(key, record, names, expires_at):
                return
        raise StoreUnavailable("the names of the logins were changed by others at the same time")

    async def forget(self, grant: Grant) -> None:
        """Remove the name of a login that was disconnected. The names of others and their lifetime stay."""
        key = group_of(grant.key.owner)
        for _ in range(MAX_CONFLICTS):
            record = await self._read(key)
            names = {} if record is None else _decode(record.body)
            if record is None or names.pop(grant.id, None) is None:
                return
            if await self._replace(key, record, names, record.expires_at):
                return
        raise StoreUnavailable("the names of the logins were changed by others at the same time")

    async def _replace(self, key: str, record: Record | None, names: dict[str, str], expires_at: float | None) -> bool:
        """Write the names in place of `record`, without empty ones. Return False if another writer was first."""
        names = {id_: text for id_, text in names.items() if text}
        version = 0 if record is None else record.version
        if not names:
            return record is None or await self._store.delete(KIND, key, version)
        body = json.dumps({"format": FORMAT, "names": names}, separators=(",", ":")).encode()
        return await self._store.put(Record(KIND, key, body, version + 1, key, expires_at))

    async def _read(self, key: str, *, remove: bool = False) -> Record | None:
        """Return the record, or None if there is none or it cannot be decrypted. `remove` deletes it then."""
        try:
            return await self._store.get(KIND, key)
        except (UndecryptableRecord, DamagedRecord):
            if remove:
                await self._store.delete(KIND, key)
            return None


def _distinct(logins: Iterable[Grant], chosen: dict[str, str], unnamed: str) -> dict[str, str]:
    """Name the logins at one bank, the first connected first. Equal names get a number."""
    named: dict[str, str] = {}
    for number, grant in enumerate(logins, 1):
        text = chosen.get(grant.id) or login_name(grant.tokens.bearer) or unnamed % {"number": number}
        name, use = text, 1
        # A user may have chosen a name that ends in a number as well.
        while name in named.values():
            use += 1
            name = f"{text} ({use})"
        named[grant.id] = name
    return named


def _decode(body: bytes) -> dict[str, str]:
    """Return the names, or none if the record cannot be decoded or was written by a newer release."""
    try:
        document: Any = json.loads(body)
        if document["format"] == FORMAT:
            return {str(id_): str(text) for id_, text in document["names"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
