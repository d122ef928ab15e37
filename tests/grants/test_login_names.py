"""The names of logins, and what remains of them if their record cannot be decrypted."""

from __future__ import annotations

import pytest

from akoya_gateway.config.model import EncryptionKey, Tokens, key_id
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.grants.login_names import KIND, LoginNames
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.grants.repository import group_of
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret
from akoya_gateway.store import EncryptedStore, Keyring, Record
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import OWNER, RING

NOW = 1_800_000_000.0
OTHER_RING = Keyring([EncryptionKey(key_id(b"o" * 32), b"o" * 32)])


def grant(sub: str) -> Grant:
    tokens = TokenSet(Secret("bearer"), Secret("refresh"), NOW + 900, (), sub)
    return Grant(GrantKey(OWNER, "sandbox", "demo-app", "mikomo", sub), tokens, GrantState.LIVE, NOW, NOW)


@pytest.mark.parametrize("fault", ["missing key", "damaged"])
async def test_names_that_cannot_be_decrypted_are_ignored_and_replaced_by_rename(fault: str) -> None:
    """With an error instead, the user could not see, choose or disconnect any login because of a display name."""
    store = MemoryStore(lambda: NOW)
    first, second = grant("a"), grant("b")
    owned = OwnerGrants(OWNER, (second, first))
    if fault == "missing key":
        await LoginNames(EncryptedStore(store, OTHER_RING), lambda: NOW, None).rename(first, "Business", owned)
    else:
        await store.put(Record(KIND, group_of(OWNER), b"damaged", group=group_of(OWNER)))
    names = LoginNames(EncryptedStore(store, RING), lambda: NOW, None)
    assert await names.names(owned) == {first.id: "Login 1", second.id: "Login 2"}
    await names.rename(second, "Personal", owned)
    assert await names.names(owned) == {first.id: "Login 1", second.id: "Personal"}


async def test_names_of_logins_at_one_bank_differ_whatever_names_the_user_chose() -> None:
    """The page that ends a login shows its name only."""
    names = LoginNames(EncryptedStore(MemoryStore(lambda: NOW), RING), lambda: NOW, None)
    owned = OwnerGrants(OWNER, tuple(grant(sub) for sub in "dcba"))
    for one, text in zip(owned.grants, ("Home", "Home", "Home", "Home (2)"), strict=True):
        await names.rename(one, text, owned)
    found = await names.names(owned)
    assert [found[one.id] for one in reversed(owned.grants)] == ["Home (2)", "Home", "Home (3)", "Home (4)"]


async def test_name_of_a_disconnected_login_is_removed_from_the_store() -> None:
    """Owners that the app identifies have no lifetime, so a name left behind would stay for ever."""
    store = MemoryStore(lambda: NOW)
    encrypted = EncryptedStore(store, RING)
    manager = GrantManager(encrypted, {}, Tokens(background=False), clock=lambda: NOW)
    first, second = [written for sub in "ab" if (written := await manager.repository.write(grant(sub), after=0))]
    owned = await manager.for_owner(OWNER)
    for one, name in ((first, "Business"), (second, "Personal")):
        await manager.login_names.rename(one, name, owned)
    await manager.disconnect(first)
    record = await encrypted.get(KIND, group_of(OWNER))
    assert record is not None
    assert (b"Business" in record.body, b"Personal" in record.body) == (False, True)
    await manager.disconnect(second)
    assert await store.get(KIND, group_of(OWNER)) is None


async def test_login_whose_name_cannot_be_decrypted_is_disconnected() -> None:
    store = MemoryStore(lambda: NOW)
    manager = GrantManager(EncryptedStore(store, RING), {}, Tokens(background=False), clock=lambda: NOW)
    written = await manager.repository.write(grant("a"), after=0)
    assert written is not None
    await store.put(Record(KIND, group_of(OWNER), b"damaged", group=group_of(OWNER)))
    assert (await manager.disconnect(written)).state is GrantState.REVOKED
    assert (await manager.for_owner(OWNER)).grants == ()
