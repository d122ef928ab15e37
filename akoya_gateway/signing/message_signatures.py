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

import os
from binascii import b2a_base64, hexlify
from collections.abc import Callable

from akoya_gateway.errors import UserError
from akoya_gateway.signing import encoding, names
from akoya_gateway.signing.algorithms import Begun, begin
from akoya_gateway.signing.keys import KeySchedule, LoadedKey
from akoya_gateway.signing.passed import Headers, Passed

Random = Callable[[int], bytes]
"""`os.urandom` outside tests."""

_DERIVED = b'"@method" "@authority" "@path" "@query"'
_LABEL = names.LABEL.encode()
_LINES = 4
_SIGNED = b"%%bsignature-input: %b=%%b\r\nsignature: %b=:%%b:\r\n" % (_LABEL, _LABEL)


class Unsignable(UserError):
    """A request line that has no signature base (RFC 9421 section 2.5: ASCII, one line a component)."""


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
        "_lines",
        "_parameters",
        "_parameters_with_digest",
        "_passed",
        "_random",
        "_second",
        "_size",
        "_suffix",
        "_times",
    )

    def __init__(self, passed: Headers, keys: KeySchedule, expires: int, random: Random) -> None:
        self._passed = passed
        self._keys = keys
        self._expires = expires
        self._random = random
        covered = b"".join(b'"%s" ' % name for name, _ in passed) + _DERIVED
        self._parameters = b"(%s)" % covered
        self._parameters_with_digest = b'(%s "content-digest")' % covered
        self._lines = encoding.lines(passed)
        self._size = encoding.size(passed) + _signature_size(self._parameters, keys)
        self._change = float("-inf")
        self._begun: Begun
        self._suffix = b""
        self._second = -1
        self._times = b""

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
        parameters, signature = self._sign(method, authority, path, query, now, content_digest)
        signed = [
            *self._passed,
            (names.SIGNATURE_INPUT, b"%s=%s" % (_LABEL, parameters)),
            (names.SIGNATURE, b"%s=:%s:" % (_LABEL, signature)),
        ]
        if content_digest is not None:
            signed.append((names.CONTENT_DIGEST, content_digest))
        return signed

    def lines(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> bytes:
        """See `Prepared.lines`."""
        parameters, signature = self._sign(method, authority, path, query, now, None)
        return _SIGNED % (self._lines, parameters, signature)

    def _sign(
        self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float, content_digest: bytes | None
    ) -> tuple[bytes, bytes]:
        """The parameters, and the signature in base64."""
        if now >= self._change:
            self._begin(now)
        created = int(now)
        if created != self._second:
            self._second = created
            self._times = b';created=%d;expires=%d;nonce="' % (created, created + self._expires)
        covered = self._parameters if content_digest is None else self._parameters_with_digest
        parameters = b"%b%b%b%b" % (covered, self._times, hexlify(self._random(16)), self._suffix)
        digest_line = b"" if content_digest is None else b'"content-digest": %b\n' % content_digest
        rest = b'"@method": %b\n"@authority": %b\n"@path": %b\n"@query": ?%b\n%b"@signature-params": %b' % (
            method,
            authority,
            path or b"/",
            query,
            digest_line,
            parameters,
        )
        if not rest.isascii() or rest.count(b"\n") != _LINES + (content_digest is not None):
            raise Unsignable("the method, host, path or query holds a character that must be percent-encoded")
        return parameters, b2a_base64(self._begun.finish(rest), newline=False)

    def _begin(self, now: float) -> None:
        constant = b"".join(b'"%s": %s\n' % header for header in self._passed)
        key = self._keys.signing(now)
        self._begun = begin(key.private, constant)
        self._suffix = _suffix(key)
        self._change = self._keys.changes_after(now)


def _signature_size(covered: bytes, keys: KeySchedule) -> int:
    times_and_nonce = b';created=%d;expires=%d;nonce="%s' % (10**10, 10**10, b"0" * 32)
    suffix = max((_suffix(key) for key in keys.keys), key=len)
    parameters = b"%s=%s%s%s" % (_LABEL, covered, times_and_nonce, suffix)
    signature = b"%s=:%s:" % (_LABEL, b2a_base64(bytes(64), newline=False))
    return encoding.size([(names.SIGNATURE_INPUT, parameters), (names.SIGNATURE, signature)])


def _suffix(key: LoadedKey) -> bytes:
    key_id = key.id.replace("\\", "\\\\").replace('"', '\\"')
    return f'";keyid="{key_id}";alg="{key.algorithm.value}";tag="{names.TAG}"'.encode("ascii")
