"""What this package needs of a provider: the smallest interface (`provider.Provider` has it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from akoya_gateway.config.model import Client
from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.oauth.outcomes import RevocationOutcome, TokenOutcome
from akoya_gateway.secret import Secret


class TokenEndpoint(Protocol):
    """One client registration's way to its provider. Nothing a provider can do is raised: it is an answer."""

    @property
    def client(self) -> Client: ...

    async def refresh(self, refresh_token: Secret, sub: str, nonce: str | None = None) -> TokenOutcome:
        """RFC 6749 section 6, once: never repeated by itself, whatever comes back. An answer of another `sub`, or with
        another nonce than that of the login, is `Untrusted`."""

    async def revoke(self, refresh_token: Secret) -> RevocationOutcome:
        """RFC 7009. May be repeated."""


def token_endpoint_for(providers: Mapping[str, TokenEndpoint], key: GrantKey) -> TokenEndpoint | None:
    """Where the grant's tokens came from. None: its client is not configured any more, or its name now stands for one
    of another environment, whose provider must never see them.
    """
    endpoint = providers.get(key.client)
    if endpoint is None or endpoint.client.environment.name != key.environment:
        return None
    return endpoint
