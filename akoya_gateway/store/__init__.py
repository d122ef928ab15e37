"""Stores grants, sessions and authorization attempts as encrypted records with compare-and-set."""

from akoya_gateway.store.base import Record, Store
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import DamagedRecord, Keyring
from akoya_gateway.store.factory import describe, open_store, open_store_for_command

__all__ = [
    "DamagedRecord",
    "EncryptedStore",
    "Keyring",
    "Record",
    "Store",
    "describe",
    "open_store",
    "open_store_for_command",
]
