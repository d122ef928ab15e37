"""The values of `signing`: how the headers to the upstream are signed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from akoya_gateway.config.model.units import Bytes, Seconds
from akoya_gateway.secret import Secret


class SigningScheme(StrEnum):
    """How the headers to the upstream are signed."""

    HTTP_MESSAGE_SIGNATURES = "http-message-signatures"
    JWT = "jwt"


class SigningAlgorithm(StrEnum):
    """The algorithm of the signing keys. The names are those of the RFC 9421 section 6.2.2 registry."""

    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    HMAC_SHA256 = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One entry of `signing.keys`.

    `material` is the text of a PEM, a JWK or a JWK Set, or the shared secret of `hmac-sha256`. An empty `id` means the
    thumbprint of the key.
    """

    id: str
    material: Secret


class InProcess(StrEnum):
    """How the middleware gives an app in the same process what it asserts. `scope["akoya"]` is set either way."""

    HEADERS = "headers"
    SCOPE = "scope"


@dataclass(frozen=True, slots=True)
class Signing:
    """How the headers to the upstream are signed."""

    scheme: SigningScheme
    algorithm: SigningAlgorithm
    keys: tuple[SigningKey, ...]
    """The first key signs. All public keys are published; shared secrets are not."""
    expires: Seconds = Seconds(60.0)
    audience: str = ""
    """The `aud` of the JWT scheme. If empty, it is the URL of the request's upstream (`Config.audience`)."""
    content_digest: Bytes = Bytes(0)
    """The size of the largest body that gets a Content-Digest (RFC 9530). 0 disables it."""
    in_process: InProcess = InProcess.HEADERS
    """Whether requests to an app that the middleware wraps get signed headers besides `scope["akoya"]`."""
