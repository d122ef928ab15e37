"""The lease of a refresh that this process runs: renewed while the request runs, and checked before it is sent."""

from __future__ import annotations

import asyncio
import contextlib

from akoya_gateway.clock import Clock
from akoya_gateway.grants.events import LeaseRenewed
from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.grants.state_machine import transition

LEASE_SECONDS = 10.0
"""Lifetime of a lease. A holder that does not renew it in this time is assumed to be dead; it renews every third."""


class HeldLease:
    """The lease of `leased`, a grant that this process (`holder`) has just leased."""

    def __init__(self, repository: GrantRepository, clock: Clock, holder: str, leased: Grant) -> None:
        assert leased.lease is not None
        self._repository = repository
        self._clock = clock
        self._holder = holder
        self._leased = leased
        self._expires_at = leased.lease.expires_at

    def is_held(self) -> bool:
        """Return False if the lease has expired, so that another process may have used the refresh token.

        This happens while this process is stopped or suspended before it has sent its request. Sent afterwards, the
        request would be the reuse for which some providers revoke all tokens of the consent.
        """
        return self._clock() < self._expires_at

    async def renew(self) -> None:
        """Renew the lease until it is lost or this task is cancelled.

        Errors are ignored, and the renewal is retried after a third of the lease. Losing the lease is not fatal,
        because the response is matched by its refresh token.
        """
        current: Grant | None = self._leased
        while current is not None and current.lease is not None and current.lease.holder == self._holder:
            self._expires_at = max(self._expires_at, current.lease.expires_at)
            await asyncio.sleep(LEASE_SECONDS / 3)
            with contextlib.suppress(Exception):
                renewed = transition(current, LeaseRenewed(self._holder, LEASE_SECONDS), self._clock())
                current = await self._repository.write(renewed, after=current.version) or await self._repository.get(
                    self._leased.id
                )
