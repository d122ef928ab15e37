"""Encryption of records at rest: AES-256-GCM with a key ring.

An encrypted body is

    version (1 byte, 0x01) | length of key ID (1 byte) | key ID | nonce (12 bytes) | ciphertext and tag (16 bytes)

The header and the caller's context are authenticated as associated data, so decryption fails if a body was moved to
another record or its header was altered. Nonces are random, so one key may encrypt 2**32 records (NIST SP 800-38D
section 8.3). That is 136 a second for a year; rotate before that.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from akoya_gateway.config.model import EncryptionKey
from akoya_gateway.errors import OperatorError, UndecryptableRecord

_FORMAT = 1
_NONCE_BYTES = 12
_TAG = 16


class DamagedRecord(OperatorError):
    """An encrypted body that is truncated, altered or in another record.

    Restore it from a backup, or delete the record.
    """

    code = "record-damaged"


class Keyring:
    """Encrypts with the first key and decrypts with any of them.

    Raises:
        ValueError: The ring is empty, a key is not 32 bytes long, or two keys have the same ID.
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
                raise ValueError(f"ring key {key.id!r} occurs twice")
            self._ciphers[key.id] = AESGCM(key.key)
        self._first = self._ciphers[keys[0].id]
        self._header = _header(keys[0].id)

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain` with the first key and bind it to `context`."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._header + nonce + self._first.encrypt(nonce, plain, self._header + context)

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            UndecryptableRecord: The ring lacks the key; the error carries the key ID.
            DamagedRecord: The body is not one that was encrypted with this `context`.
        """
        header, key_id = _split(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UndecryptableRecord(key_id)
        start = len(header)
        nonce = sealed[start : start + _NONCE_BYTES]
        try:
            return cipher.decrypt(nonce, sealed[start + _NONCE_BYTES :], header + context)
        except InvalidTag:
            raise DamagedRecord(f"a record encrypted with key {key_id!r} was altered or moved") from None

    def needs_reencryption(self, sealed: bytes) -> bool:
        """Return True if the body was encrypted with another key than the first.

        Raises:
            DamagedRecord: The body has no readable header.
        """
        return _split(sealed)[0] != self._header


def _header(key_id: str) -> bytes:
    name = key_id.encode("ascii")
    if not 0 < len(name) < 256:
        raise ValueError("a ring key id is 1 to 255 ASCII characters")
    return bytes((_FORMAT, len(name))) + name


def _split(sealed: bytes) -> tuple[bytes, str]:
    """Return the header and key ID of an encrypted body, after checking its minimum length."""
    if len(sealed) < 2 or sealed[0] != _FORMAT:
        raise DamagedRecord("a record's body is not encrypted")
    end = 2 + sealed[1]
    if sealed[1] == 0 or len(sealed) < end + _NONCE_BYTES + _TAG:
        raise DamagedRecord("an encrypted record is truncated")
    try:
        return sealed[:end], sealed[2:end].decode("ascii")
    except UnicodeDecodeError:
        raise DamagedRecord("an encrypted record has no readable key ID") from None


def new_key_text() -> str:
    """Return a new key as text for `sessions.keys`: 32 random bytes in base64, and a line end."""
    return base64.b64encode(os.urandom(32)).decode() + "\n"
