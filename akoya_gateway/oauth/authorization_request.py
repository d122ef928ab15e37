"""Builds the authorization request: the URL to which the browser is redirected.

RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core 3.1.2.1 and docs/akoya.md section 2.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from akoya_gateway.config.model import Client, Connector
from akoya_gateway.secret import Secret

RandomBytes = Callable[[int], bytes]
"""Returns the given number of random bytes. `secrets.token_bytes` except in tests."""

RESERVED = frozenset(
    {
        "connector",
        "client_id",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
        "code_challenge",
        "code_challenge_method",
        "nonce",
    }
)
"""Parameters that only the gateway sets; an environment's fixed `authorization_parameters` never override them.

`request` and `request_uri` (RFC 9101) are not allowed in `authorization_parameters` either, because they would replace
all other parameters.
"""

_REPLACES_ALL = frozenset({"request", "request_uri"})


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One authorization request. `parameters` are in the order in which they are sent and not yet encoded."""

    endpoint: str
    parameters: tuple[tuple[str, str], ...] = field(repr=False)

    @property
    def url(self) -> str:
        """The endpoint with the parameters added to its query.

        The endpoint's own query is retained (RFC 6749 section 3.1) and a fragment is dropped. Spaces become `%20`,
        which every server decodes as a space.
        """
        endpoint, _, _ = self.endpoint.partition("#")
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in self.parameters)
        if "?" not in endpoint:
            return f"{endpoint}?{query}"
        return f"{endpoint}{query}" if endpoint.endswith(("?", "&")) else f"{endpoint}&{query}"


def authorization_request(
    client: Client,
    connector: Connector,
    state: str,
    code_challenge: str | None = None,
    nonce: str | None = None,
) -> AuthorizationRequest:
    """Build the request that Akoya documents (docs/akoya.md section 2).

    Args:
        client: The OAuth client.
        connector: The data provider to connect.
        state: The `state` of the attempt.
        code_challenge: The PKCE S256 challenge (RFC 7636 section 4.3), or None to omit PKCE.
        nonce: The nonce, or None to omit it.
    """
    parameters = [
        ("connector", connector.id),
        ("client_id", client.client_id),
        ("redirect_uri", client.redirect_uri),
        ("response_type", "code"),
        ("scope", " ".join(client.scopes)),
        ("state", state),
    ]
    if code_challenge is not None:
        parameters += [("code_challenge", code_challenge), ("code_challenge_method", "S256")]
    if nonce is not None:
        parameters.append(("nonce", nonce))
    parameters += [
        (name, value)
        for name, value in client.environment.authorization_parameters
        if name not in RESERVED | _REPLACES_ALL
    ]
    return AuthorizationRequest(client.environment.authorization_endpoint, tuple(parameters))


def authorization_url(
    client: Client,
    connector: Connector,
    state: str,
    code_challenge: str | None = None,
    nonce: str | None = None,
) -> str:
    """Return the URL of `authorization_request(...)` for a `Location` header."""
    return authorization_request(client, connector, state, code_challenge, nonce).url


def new_state(random: RandomBytes = secrets.token_bytes) -> str:
    """Return 192 random bits as 32 base64url characters.

    Hydra requires at least 8 characters (docs/akoya.md section 1a).
    """
    return _base64url(random(24))


def new_nonce(random: RandomBytes = secrets.token_bytes) -> str:
    """Return 192 random bits (OpenID Connect Core 15.5.2)."""
    return _base64url(random(24))


def code_verifier(random: RandomBytes = secrets.token_bytes) -> Secret:
    """Return a `code_verifier` of 43 characters from 256 random bits (RFC 7636 section 4.1)."""
    return Secret(_base64url(random(32)))


def code_challenge(verifier: Secret) -> str:
    """Return `BASE64URL-ENCODE(SHA256(ASCII(code_verifier)))` (RFC 7636 section 4.2, method S256)."""
    return _base64url(hashlib.sha256(verifier.reveal().encode("ascii")).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
