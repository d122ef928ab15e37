"""What this package needs of a provider: the smallest interface (`provider.Provider` has it)."""

from __future__ import annotations

from typing import Protocol

from akoya_gateway.config.model import Client
from akoya_gateway.protocol.answers import RevocationAnswer, TokenAnswer
from akoya_gateway.secret import Secret


class TokenEndpoint(Protocol):
    """One client registration's way to its provider. Nothing a provider can do is raised: it is an answer."""

    @property
    def client(self) -> Client: ...

    async def refresh(self, refresh_token: Secret, sub: str) -> TokenAnswer:
        """RFC 6749 section 6, once: never repeated by itself, whatever comes back. An answer of another `sub` is
        `Untrusted`."""

    async def revoke(self, refresh_token: Secret) -> RevocationAnswer:
        """RFC 7009. May be repeated."""
