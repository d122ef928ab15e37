"""Grants whose bearer can neither be used nor be replaced now: the error, and the offer to connect again."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants.errors import NeedsReconnect, RegistrationFault, TemporarilyUnavailable, UntrustedResponses
from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.grant import Grant, GrantState
from akoya_gateway.grants.interfaces import TokenEndpoint, token_endpoint_for
from akoya_gateway.grants.provider_health import ProviderHealth
from akoya_gateway.grants.refresh_policy import OFFER_AFTER, held_until, must_reconnect, offered_reconnect


class UnavailableGrants:
    """Explains why a grant has no usable bearer. `since` is when the configuration was loaded."""

    def __init__(
        self, providers: Mapping[str, TokenEndpoint], health: ProviderHealth, clock: Clock, since: float
    ) -> None:
        self._providers = providers
        self._health = health
        self._clock = clock
        self._since = since

    def error(self, grant: Grant) -> GatewayError:
        """Return the error for a grant whose bearer can neither be used nor be replaced now."""
        now = self._clock()
        if must_reconnect(grant):
            return NeedsReconnect(grant)
        endpoint = token_endpoint_for(self._providers, grant.key)
        held = self._health.wait(endpoint.client, grant.connector) if endpoint is not None else 0.0
        retry_after = max(ceil(max(held_until(grant, now, self._since) - now, held)), 1)
        refused = any(fault.client == grant.key.client for fault in self._health.registration_problems)
        # Another replica may have sent the request; then only the grant says why it is on hold.
        refused = refused or (grant.reason == Reason.OPERATOR_FAULT and grant.failed_under >= self._since)
        reconnect = grant.connector if self.offers_reconnect(grant) else None
        if endpoint is None or refused:
            return RegistrationFault(retry_after=retry_after, reconnect=reconnect)
        if grant.reason == Reason.UNTRUSTED_ANSWER or self._health.trust.wait(grant.key.environment, grant.connector):
            return UntrustedResponses(retry_after=retry_after, reconnect=reconnect)
        return TemporarilyUnavailable(retry_after=retry_after, reconnect=reconnect)

    def offers_reconnect(self, grant: Grant) -> bool:
        """Return True if the user should be offered to connect this bank again, although the grant has not ended.

        This is so after `OFFER_AFTER` consecutive failures that may be those of this grant only, such as untrusted
        responses, or as many untrusted responses of its connector. The connector counts because an open breaker lets
        only one refresh through for all grants, so that a single grant would reach the limit late. While the provider
        rejects the client, connecting again would fail as well.
        """
        endpoint = token_endpoint_for(self._providers, grant.key)
        if grant.state in {GrantState.NEEDS_RECONNECT, GrantState.REVOKED}:
            return False
        if endpoint is None or self._health.rejects(endpoint.client):
            return False
        concerned = grant.reason == Reason.UNTRUSTED_ANSWER or not grant.usable(self._clock())
        responses = self._health.trust.responses(grant.key.environment, grant.connector)
        return offered_reconnect(grant, self._since) or (concerned and responses >= OFFER_AFTER)
