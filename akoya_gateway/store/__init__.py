"""Where grants, sessions and authorization attempts are kept: sealed records with compare-and-set."""

from akoya_gateway.store.opening import describe, open_store
from akoya_gateway.store.record import Record, Store
from akoya_gateway.store.sealing import DamagedRecord, KeyRing
from akoya_gateway.store.vault import Vault

__all__ = ["DamagedRecord", "KeyRing", "Record", "Store", "Vault", "describe", "open_store"]
