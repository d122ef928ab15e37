"""RFC 9421 signatures over the gateway headers and the request line.

In the signature base the `Akoya-*` headers come first and the request components last. Everything that depends on the
grant, above all the long id_token, is therefore encoded once per `PreparedHeaders`. With `hmac-sha256` and
`ecdsa-p256-sha256` it is also hashed only once, so that each request hashes only its own few hundred bytes.

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
from collections.abc import Callable, Iterator

from akoya_gateway.errors import UserError
from akoya_gateway.signing import header_names, header_values
from akoya_gateway.signing.algorithms import SignatureContext, begin_signature
from akoya_gateway.signing.claims import Headers, UpstreamClaims
from akoya_gateway.signing.keys import KeySchedule, LoadedKey

Random = Callable[[int], bytes]
"""`os.urandom` outside tests."""

_NONCE_LENGTH = 32
_NONCE_BATCH = 64


def nonces(random: Random) -> Iterator[bytes]:
    """Yield nonces of 128 random bits in hexadecimal.

    Random bytes are fetched in batches, so an iterator must not be shared across a fork: the processes would use the
    same nonces.
    """
    while True:
        made = hexlify(random(_NONCE_BATCH * _NONCE_LENGTH // 2))
        for at in range(0, len(made), _NONCE_LENGTH):
            yield made[at : at + _NONCE_LENGTH]


_DERIVED = b'"@method" "@authority" "@path" "@query"'
_LABEL = header_names.LABEL.encode()
_MEMBER = _LABEL + b"="
_DIGEST_BEFORE_PARAMETERS = b'\n"content-digest": %b\n"@signature-params": '
_INPUT_LINE = b"signature-input: " + _MEMBER
_SIGNATURE_LINE = b"\r\nsignature: " + _MEMBER + b":"


class UnsignableRequest(UserError):
    """The request line has no valid signature base: each component must be one line of ASCII (RFC 9421 section 2.5)."""


def authority(host: bytes, scheme: bytes) -> bytes:
    """Normalize a Host value for `@authority`: lower case, no default port (RFC 9421 section 2.2.3)."""
    host = host.lower()
    default = b":443" if scheme in {b"https", b"wss"} else b":80"
    return host[: -len(default)] if host.endswith(default) else host


class MessageSigner:
    """Signs requests with `scheme: http-message-signatures`. `expires` is the lifetime of a signature in seconds."""

    def __init__(self, keys: KeySchedule, expires: float, random: Random = os.urandom) -> None:
        self._keys = keys
        self._expires = int(expires)
        self._nonces = nonces(random)

    def prepare(self, claims: UpstreamClaims) -> PreparedMessage:
        """See `Signer.prepare`."""
        return PreparedMessage(header_values.headers(claims), self._keys, self._expires, self._nonces)


class PreparedMessage:
    """The encoded headers of one grant, with a signature context that has already processed them."""

    __slots__ = (
        "_change",
        "_claims",
        "_context",
        "_expires",
        "_keys",
        "_lines",
        "_nonces",
        "_parameters",
        "_parameters_with_digest",
        "_second",
        "_size",
        "_suffix",
        "_times",
    )

    def __init__(self, claims: Headers, keys: KeySchedule, expires: int, nonces: Iterator[bytes]) -> None:
        self._claims = claims
        self._keys = keys
        self._expires = expires
        self._nonces = nonces
        covered = b"".join(b'"%s" ' % name for name, _ in claims) + _DERIVED
        self._parameters = b"(%s)" % covered
        self._parameters_with_digest = b'(%s "content-digest")' % covered
        self._lines = header_values.lines(claims)
        self._size = header_values.size(claims) + _signature_size(self._parameters, keys)
        self._change = float("-inf")
        self._context: SignatureContext
        self._suffix = b""
        self._second = -1
        self._times = b""

    @property
    def size(self) -> int:
        """See `PreparedHeaders.size`. The Content-Digest line is not included."""
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
        """See `PreparedHeaders.headers`."""
        parameters, signature = self._sign(method, authority, path, query, now, content_digest)
        signed = [
            *self._claims,
            (header_names.SIGNATURE_INPUT, _MEMBER + parameters),
            (header_names.SIGNATURE, b"".join((_MEMBER, b":", signature, b":"))),
        ]
        if content_digest is not None:
            signed.append((header_names.CONTENT_DIGEST, content_digest))
        return signed

    def lines(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> bytes:
        """See `PreparedHeaders.lines`."""
        parameters, signature = self._sign(method, authority, path, query, now, None)
        return b"".join((self._lines, _INPUT_LINE, parameters, _SIGNATURE_LINE, signature, b":\r\n"))

    def _sign(
        self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float, content_digest: bytes | None
    ) -> tuple[bytes, bytes]:
        """Return the signature parameters and the signature in base64."""
        if now >= self._change:
            self._begin(now)
        created = int(now)
        if created != self._second:
            self._second = created
            self._times = b';created=%d;expires=%d;nonce="' % (created, created + self._expires)
        covered = self._parameters if content_digest is None else self._parameters_with_digest
        parameters = b"".join((covered, self._times, next(self._nonces), self._suffix))
        rest = b"".join(
            (
                b'"@method": ',
                method,
                b'\n"@authority": ',
                authority,
                b'\n"@path": ',
                path or b"/",
                b'\n"@query": ?',
                query,
                b'\n"@signature-params": ' if content_digest is None else _DIGEST_BEFORE_PARAMETERS % content_digest,
                parameters,
            )
        )
        # One line break before each component but the first: one more would begin a component of the sender's choice.
        if not rest.isascii() or rest.count(b"\n") != (4 if content_digest is None else 5):
            raise UnsignableRequest("the method, host, path or query holds a character that must be percent-encoded")
        return parameters, b2a_base64(self._context.finish(rest), newline=False)

    def _begin(self, now: float) -> None:
        constant = b"".join(b'"%s": %s\n' % header for header in self._claims)
        key = self._keys.signing(now)
        self._context = begin_signature(key.private, constant)
        self._suffix = _suffix(key)
        self._change = self._keys.changes_after(now)


def _signature_size(covered: bytes, keys: KeySchedule) -> int:
    times_and_nonce = b';created=%d;expires=%d;nonce="%s' % (10**10, 10**10, b"0" * 32)
    suffix = max((_suffix(key) for key in keys.keys), key=len)
    parameters = b"%s=%s%s%s" % (_LABEL, covered, times_and_nonce, suffix)
    signature = b"%s=:%s:" % (_LABEL, b2a_base64(bytes(64), newline=False))
    return header_values.size([(header_names.SIGNATURE_INPUT, parameters), (header_names.SIGNATURE, signature)])


def _suffix(key: LoadedKey) -> bytes:
    key_id = key.id.replace("\\", "\\\\").replace('"', '\\"')
    return f'";keyid="{key_id}";alg="{key.algorithm.value}";tag="{header_names.TAG}"'.encode("ascii")
