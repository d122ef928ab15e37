"""An authorization attempt becomes the URL that the browser is sent to.

RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core 3.1.2.1 and akoya.md section 2.
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
"""Gives that many random bytes. `secrets.token_bytes` outside tests."""

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
"""Parameters that belong to the gateway: an environment's fixed `authorization_parameters` never override them.
`request` and `request_uri` (RFC 9101) are refused with them, since they would replace all the others."""

_REPLACES_ALL = frozenset({"request", "request_uri"})


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One authorization request. `parameters` are in the order in which they are sent, not yet encoded."""

    endpoint: str
    parameters: tuple[tuple[str, str], ...] = field(repr=False)

    @property
    def url(self) -> str:
        """The endpoint with the parameters added to its query (RFC 6749 section 3.1: an own query is retained).

        Spaces become `%20`, which every server reads as a space; a fragment is never kept.
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
    """Akoya's documented request (akoya.md section 2), with PKCE S256 (RFC 7636 section 4.3) and `nonce` if given."""
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
    """`authorization_request(...)` as text for a `Location` header."""
    return authorization_request(client, connector, state, code_challenge, nonce).url


def new_state(random: RandomBytes = secrets.token_bytes) -> str:
    """192 random bits as 32 base64url characters: above Hydra's minimum of 8 characters (akoya.md section 1a)."""
    return _base64url(random(24))


def new_nonce(random: RandomBytes = secrets.token_bytes) -> str:
    """192 random bits (OpenID Connect Core 15.5.2)."""
    return _base64url(random(24))


def code_verifier(random: RandomBytes = secrets.token_bytes) -> Secret:
    """A `code_verifier` of 43 characters from 256 random bits (RFC 7636 section 4.1)."""
    return Secret(_base64url(random(32)))


def code_challenge(verifier: Secret) -> str:
    """`BASE64URL-ENCODE(SHA256(ASCII(code_verifier)))` (RFC 7636 section 4.2, method S256)."""
    return _base64url(hashlib.sha256(verifier.reveal().encode("ascii")).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
