"""RFC 9421 signatures over our headers and the request line.

The `Akoya-*` headers come first in the signature base and the parts of the request last. So everything that a grant
decides, the long id_token above all, is encoded once per `Prepared`, and for `hmac-sha256` and `ecdsa-p256-sha256` it
is hashed once as well: a request hashes only its own few hundred bytes.

    "akoya-connector": mikomo            <- once per grant
    "akoya-id-token": eyJ...
    ...
    "@method": GET                       <- per request
    "@authority": app.example.com
    "@path": /api
    "@query": ?
    "@signature-params": ("akoya-connector" ... "@query");created=1;expires=61;nonce="...";keyid="k1";alg="..."; ...
"""

from __future__ import annotations

import hashlib
import os
from binascii import b2a_base64, hexlify
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from akoya_gateway.signing import encoding, names
from akoya_gateway.signing.keys import KeySchedule, LoadedKey
from akoya_gateway.signing.passed import Headers, Passed

Random = Callable[[int], bytes]
"""`os.urandom` outside tests."""

_DERIVED = b'"@method" "@authority" "@path" "@query"'
_LABEL = names.LABEL.encode()


def authority(host: bytes, scheme: bytes) -> bytes:
    """A Host value as `@authority` wants it (RFC 9421 section 2.2.3): lower case, without the scheme's default port."""
    host = host.lower()
    default = b":443" if scheme in {b"https", b"wss"} else b":80"
    return host[: -len(default)] if host.endswith(default) else host


class MessageSigner:
    """`scheme: http-message-signatures`. `expires` is the life of a signature in seconds."""

    def __init__(self, keys: KeySchedule, expires: float, random: Random = os.urandom) -> None:
        self._keys = keys
        self._expires = int(expires)
        self._random = random

    def prepare(self, passed: Passed) -> PreparedMessage:
        return PreparedMessage(encoding.headers(passed), self._keys, self._expires, self._random)


class PreparedMessage:
    """One grant's headers, encoded and begun to be signed."""

    __slots__ = (
        "_begun",
        "_change",
        "_expires",
        "_keys",
        "_parameters",
        "_parameters_with_digest",
        "_passed",
        "_random",
        "_size",
    )

    def __init__(self, passed: Headers, keys: KeySchedule, expires: int, random: Random) -> None:
        self._passed = passed
        self._keys = keys
        self._expires = expires
        self._random = random
        covered = b"".join(b'"%s" ' % name for name, _ in passed) + _DERIVED
        self._parameters = b"(%s)" % covered
        self._parameters_with_digest = b'(%s "content-digest")' % covered
        self._size = encoding.size(passed) + _signature_size(self._parameters, keys)
        self._change = float("-inf")
        self._begun: _Begun

    @property
    def size(self) -> int:
        """See `Prepared.size`; without the Content-Digest line."""
        return self._size

    def headers(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        query: bytes,
        now: float,
        *,
        content_digest: bytes | None = None,
    ) -> Headers:
        """See `Prepared.headers`."""
        if now >= self._change:
            self._begin(now)
        begun = self._begun
        created = int(now)
        covered = self._parameters if content_digest is None else self._parameters_with_digest
        parameters = b'%s;created=%d;expires=%d;nonce="%s"%s' % (
            covered,
            created,
            created + self._expires,
            hexlify(self._random(16)),
            begun.suffix,
        )
        digest_line = b"" if content_digest is None else b'"content-digest": %s\n' % content_digest
        rest = b'"@method": %s\n"@authority": %s\n"@path": %s\n"@query": ?%s\n%s"@signature-params": %s' % (
            method,
            authority,
            path or b"/",
            query,
            digest_line,
            parameters,
        )
        signed = [
            *self._passed,
            (names.SIGNATURE_INPUT, b"%s=%s" % (_LABEL, parameters)),
            (names.SIGNATURE, b"%s=:%s:" % (_LABEL, b2a_base64(begun.finish(rest), newline=False))),
        ]
        if content_digest is not None:
            signed.append((names.CONTENT_DIGEST, content_digest))
        return signed

    def _begin(self, now: float) -> None:
        constant = b"".join(b'"%s": %s\n' % header for header in self._passed)
        self._begun = _begin(self._keys.signing(now), constant)
        self._change = self._keys.changes_after(now)


def _signature_size(covered: bytes, keys: KeySchedule) -> int:
    times_and_nonce = b';created=%d;expires=%d;nonce="%s"' % (10**10, 10**10, b"0" * 32)
    suffix = max((_suffix(key) for key in keys.keys), key=len)
    parameters = b"%s=%s%s%s" % (_LABEL, covered, times_and_nonce, suffix)
    signature = b"%s=:%s:" % (_LABEL, b2a_base64(bytes(64), newline=False))
    return encoding.size([(names.SIGNATURE_INPUT, parameters), (names.SIGNATURE, signature)])


class _Begun(Protocol):
    """A signature whose first part is known. `suffix` is the constant end of the parameters."""

    suffix: bytes

    def finish(self, rest: bytes) -> bytes: ...


def _begin(key: LoadedKey, constant: bytes) -> _Begun:
    suffix = _suffix(key)
    if isinstance(key.private, bytes):
        return _Hmac(key.private, constant, suffix)
    if isinstance(key.private, ed25519.Ed25519PrivateKey):
        return _Ed25519(key.private, constant, suffix)
    return _Ecdsa(key.private, constant, suffix)


def _suffix(key: LoadedKey) -> bytes:
    key_id = key.id.replace("\\", "\\\\").replace('"', '\\"')
    return f';keyid="{key_id}";alg="{key.algorithm.value}";tag="{names.TAG}"'.encode("ascii")


class _Hmac:
    """RFC 9421 section 3.3.3. The two hashes of RFC 2104 are kept open after the key and the constant part; copying
    them costs half of what copying an `hmac.HMAC` does."""

    __slots__ = ("_inner", "_outer", "suffix")

    def __init__(self, secret: bytes, constant: bytes, suffix: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + constant)
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in block))
        self.suffix = suffix

    def finish(self, rest: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(rest)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class _Ed25519:
    """RFC 9421 section 3.3.6. Ed25519 reads its message twice, so nothing can be hashed ahead."""

    __slots__ = ("_constant", "_key", "suffix")

    def __init__(self, key: ed25519.Ed25519PrivateKey, constant: bytes, suffix: bytes) -> None:
        self._key = key
        self._constant = constant
        self.suffix = suffix

    def finish(self, rest: bytes) -> bytes:
        return self._key.sign(self._constant + rest)


class _Ecdsa:
    """RFC 9421 section 3.3.4: r and s, 32 bytes each, not DER."""

    __slots__ = ("_hash", "_key", "suffix")

    _ALGORITHM = ec.ECDSA(Prehashed(hashes.SHA256()))

    def __init__(self, key: ec.EllipticCurvePrivateKey, constant: bytes, suffix: bytes) -> None:
        self._key = key
        self._hash = hashlib.sha256(constant)
        self.suffix = suffix

    def finish(self, rest: bytes) -> bytes:
        whole = self._hash.copy()
        whole.update(rest)
        r, s = decode_dss_signature(self._key.sign(whole.digest(), self._ALGORITHM))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
