"""Encrypted bodies: only the right key decrypts them, in the right record and unaltered."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.config.model import EncryptionKey, key_id
from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.store import DamagedRecord, EncryptedStore, Keyring, Record
from akoya_gateway.store.memory import MemoryStore

OLD, NEW, OTHER = (EncryptionKey(key_id(bytes([n]) * 32), bytes([n]) * 32) for n in (1, 2, 3))


def test_key_id_is_eight_hex_digits_and_differs_between_keys() -> None:
    assert len({OLD.id, NEW.id, OTHER.id}) == 3
    assert all(len(key.id) == 8 and int(key.id, 16) >= 0 for key in (OLD, NEW, OTHER))


def test_sealed_body_opens_and_each_ciphertext_differs() -> None:
    keyring = Keyring([OLD])
    first, second = keyring.encrypt(b"refresh token", b"here"), keyring.encrypt(b"refresh token", b"here")
    assert keyring.decrypt(first, b"here") == keyring.decrypt(second, b"here") == b"refresh token"
    assert first != second
    assert b"refresh" not in first


def test_first_key_seals_and_all_open() -> None:
    sealed = Keyring([OLD]).encrypt(b"plain", b"")
    keyring = Keyring([NEW, OLD])
    assert keyring.decrypt(sealed, b"") == b"plain"
    assert keyring.needs_reencryption(sealed)
    again = keyring.encrypt(b"plain", b"")
    assert not keyring.needs_reencryption(again)
    assert Keyring([NEW]).decrypt(again, b"") == b"plain"


def test_missing_key_is_named() -> None:
    with pytest.raises(UndecryptableRecord) as caught:
        Keyring([NEW]).decrypt(Keyring([OLD]).encrypt(b"plain", b""), b"")
    assert caught.value.key_id == OLD.id
    assert OLD.id in caught.value.detail


def test_another_key_under_the_same_id_does_not_open() -> None:
    with pytest.raises(DamagedRecord):
        Keyring([EncryptionKey(OLD.id, NEW.key)]).decrypt(Keyring([OLD]).encrypt(b"plain", b""), b"")


def test_body_opens_in_its_own_context_alone() -> None:
    keyring = Keyring([OLD])
    with pytest.raises(DamagedRecord):
        keyring.decrypt(keyring.encrypt(b"plain", b"here"), b"there")


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), plain=st.binary(max_size=200))
def test_every_altered_byte_is_detected(at: int, flip: int, plain: bytes) -> None:
    keyring = Keyring([OLD])
    sealed = bytearray(keyring.encrypt(plain, b"context"))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises((DamagedRecord, UndecryptableRecord)):
        keyring.decrypt(bytes(sealed), b"context")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_the_declared_errors(rubbish: bytes) -> None:
    for act in (lambda: Keyring([OLD]).decrypt(rubbish, b""), lambda: Keyring([OLD]).needs_reencryption(rubbish)):
        with contextlib.suppress(DamagedRecord, UndecryptableRecord):
            act()


@given(st.integers(0, 60))
def test_cut_body_is_damaged(length: int) -> None:
    keyring = Keyring([OLD])
    sealed = keyring.encrypt(b"x" * 30, b"")
    with pytest.raises(DamagedRecord):
        keyring.decrypt(sealed[: min(length, len(sealed) - 1)], b"")


def test_ring_that_cannot_be_right_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Keyring([])
    with pytest.raises(ValueError, match="32"):
        Keyring([EncryptionKey("short", b"x" * 31)])
    with pytest.raises(ValueError, match="twice"):
        Keyring([OLD, OLD])


def test_neither_ring_nor_key_prints_the_key() -> None:
    assert OLD.key.hex() not in repr(OLD) + repr(Keyring([OLD]))
    assert repr(OLD.key) not in repr(OLD)


class TestVault:
    record = Record("grant", "k1", b"refresh token", group="owner-1")

    async def test_bodies_are_plain_above_and_sealed_below(self) -> None:
        store = MemoryStore()
        encrypted_store = EncryptedStore(store, Keyring([OLD]))
        assert await encrypted_store.put(self.record)
        assert await encrypted_store.get("grant", "k1") == self.record
        assert await encrypted_store.find("grant", "owner-1") == (self.record,)
        assert [r async for r in encrypted_store.scan("grant")] == [self.record]
        assert await encrypted_store.changed("grant", "k1", 0, 1) == self.record
        assert await encrypted_store.count("grant", "owner-1") == 1
        below = await store.get("grant", "k1")
        assert below is not None
        assert b"refresh" not in below.body
        assert await encrypted_store.take("grant", "k1") == self.record
        assert await encrypted_store.get("grant", "k1") is await encrypted_store.take("grant", "k1") is None

    @pytest.mark.parametrize("move", [{"key": "k2"}, {"group": "thief"}, {"kind": "session"}])
    async def test_record_moved_by_an_attacker_with_store_access_is_not_decrypted(self, move: dict[str, str]) -> None:
        store = MemoryStore()
        encrypted_store = EncryptedStore(store, Keyring([OLD]))
        await encrypted_store.put(self.record)
        sealed = await store.take("grant", "k1")
        assert sealed is not None
        moved = replace(sealed, **move)  # type: ignore[arg-type]
        await store.put(moved)
        with pytest.raises(DamagedRecord):
            await encrypted_store.get(moved.kind, moved.key)
        with pytest.raises(DamagedRecord):
            await encrypted_store.find(moved.kind, moved.group)

    async def test_missing_key_is_an_error_and_never_an_empty_result(self) -> None:
        store = MemoryStore()
        await EncryptedStore(store, Keyring([OLD])).put(self.record)
        encrypted_store = EncryptedStore(store, Keyring([NEW]))
        for operation in (encrypted_store.get("grant", "k1"), encrypted_store.find("grant", "owner-1")):
            with pytest.raises(UndecryptableRecord):
                await operation

    async def test_missing_key_is_noted_for_readiness(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = MemoryStore()
        await EncryptedStore(store, Keyring([OLD])).put(self.record)
        encrypted_store = EncryptedStore(store, Keyring([NEW]))
        assert not encrypted_store.notes
        assert [record async for record in encrypted_store.scan("grant")] == []
        (note,) = encrypted_store.notes
        assert f"no key '{OLD.id}' in sessions.keys" in note
        monkeypatch.setattr("akoya_gateway.store.encrypted_store.NOTE_SECONDS", 0.0)
        assert not encrypted_store.notes
