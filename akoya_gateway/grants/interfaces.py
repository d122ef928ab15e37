"""The interface to a provider that this package needs. `provider.Provider` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from akoya_gateway.config.model import Client
from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.oauth.outcomes import RevocationOutcome, TokenOutcome
from akoya_gateway.secret import Secret


class TokenEndpoint(Protocol):
    """The token and revocation endpoints of a provider, for one client registration.

    Provider failures are never raised; they are returned as outcomes.
    """

    @property
    def client(self) -> Client:
        """The client registration."""
        ...

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        """Send one refresh request (RFC 6749 section 6). It is never retried, regardless of the outcome.

        A response with another `sub`, or with another nonce than that of the login, is `Untrusted`. If `may_send`
        is given and returns False once the connection is established, the request is not sent: `ProviderDown`.
        """

    async def revoke(self, refresh_token: Secret) -> RevocationOutcome:
        """Revoke a refresh token (RFC 7009). May be repeated."""


def token_endpoint_for(providers: Mapping[str, TokenEndpoint], key: GrantKey) -> TokenEndpoint | None:
    """Return the endpoint that issued the grant's tokens, or None.

    None means that the client is no longer configured, or that its name now belongs to a client of another environment,
    whose provider must never see these tokens.
    """
    endpoint = providers.get(key.client)
    if endpoint is None or endpoint.client.environment.name != key.environment:
        return None
    return endpoint
