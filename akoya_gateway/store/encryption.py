"""Records at rest: AES-256-GCM under a ring of keys.

A sealed body is

    version (1 byte, 0x01) | length of key id (1 byte) | key id | nonce (12 bytes) | ciphertext and tag (16 bytes)

The header and the caller's context are authenticated with it, so a body that was moved to another record, or whose
header was touched, does not open. Nonces are random: one key may seal 2**32 records (NIST SP 800-38D section 8.3),
which is 136 a second for a year; rotate before that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from akoya_gateway.config.model import EncryptionKey
from akoya_gateway.errors import OperatorError, UndecryptableRecord

_FORMAT = 1
_NONCE = 12
_TAG = 16


class DamagedRecord(OperatorError):
    """A sealed body that is cut, altered or not in its own place. Restore it from a backup, or delete the record."""

    code = "record-damaged"


class Keyring:
    """Seals under the first key, opens under any.

    Raises ValueError for an empty ring, a key that is not 32 bytes, and two keys with one id.
    """

    __slots__ = ("_ciphers", "_first", "_header")

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        if not keys:
            raise ValueError("a key ring needs at least one key")
        self._ciphers: dict[str, AESGCM] = {}
        for key in keys:
            if len(key.key) != 32:
                raise ValueError(f"ring key {key.id!r} is {len(key.key)} bytes long, it must be 32")
            if key.id in self._ciphers:
                raise ValueError(f"ring key {key.id!r} is there twice")
            self._ciphers[key.id] = AESGCM(key.key)
        self._first = self._ciphers[keys[0].id]
        self._header = _header(keys[0].id)

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """`plain`, encrypted under the first key and bound to `context`."""
        nonce = os.urandom(_NONCE)
        return self._header + nonce + self._first.encrypt(nonce, plain, self._header + context)

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """The plain bytes. Raises `UndecryptableRecord` with the id of a key that the ring has not, and
        `DamagedRecord` for a body that is not what was sealed under `context`.
        """
        header, key_id = _split(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UndecryptableRecord(key_id)
        start = len(header)
        nonce = sealed[start : start + _NONCE]
        try:
            return cipher.decrypt(nonce, sealed[start + _NONCE :], header + context)
        except InvalidTag:
            raise DamagedRecord(f"a record sealed with key {key_id!r} was altered or is not in its own place") from None

    def needs_reencryption(self, sealed: bytes) -> bool:
        """True if it was sealed under another key than the first. Raises `DamagedRecord` if that cannot be seen."""
        return _split(sealed)[0] != self._header


def _header(key_id: str) -> bytes:
    name = key_id.encode("ascii")
    if not 0 < len(name) < 256:
        raise ValueError("a ring key id is 1 to 255 ASCII characters")
    return bytes((_FORMAT, len(name))) + name


def _split(sealed: bytes) -> tuple[bytes, str]:
    """Header and key id of a sealed body that is long enough to be one."""
    if len(sealed) < 2 or sealed[0] != _FORMAT:
        raise DamagedRecord("a record's body is not a sealed one")
    end = 2 + sealed[1]
    if sealed[1] == 0 or len(sealed) < end + _NONCE + _TAG:
        raise DamagedRecord("a sealed record is cut short")
    try:
        return sealed[:end], sealed[2:end].decode("ascii")
    except UnicodeDecodeError:
        raise DamagedRecord("a sealed record has no readable key id") from None
