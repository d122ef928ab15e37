"""The grant manager: the only object of this package that entry points and endpoints use.

It reads, refreshes, connects and disconnects grants. The state machine (`state_machine`), the refresh itself
(`refresher`), the cache and the queues are in modules of their own.
"""

from __future__ import annotations

import asyncio
import random as random_module
import secrets
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client, Tokens
from akoya_gateway.deadline import finishes_within
from akoya_gateway.errors import GatewayError, StoreUnavailable
from akoya_gateway.grants.cache import CachedGrants, GrantCache
from akoya_gateway.grants.disconnect_listeners import DisconnectListener, DisconnectListeners
from akoya_gateway.grants.errors import NeedsReconnect, TemporarilyUnavailable
from akoya_gateway.grants.events import Reconnected, RevokeRequested
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants, public_id
from akoya_gateway.grants.interfaces import TokenEndpoint
from akoya_gateway.grants.login_names import LoginNames
from akoya_gateway.grants.observer import GrantObserver, NullGrantObserver
from akoya_gateway.grants.provider_health import ProviderHealth, RegistrationProblem
from akoya_gateway.grants.refresh_log import log_faults
from akoya_gateway.grants.refresh_policy import (
    Action,
    due_at,
    must_reconnect,
    next_action,
)
from akoya_gateway.grants.refresh_scheduler import EARLY_FACTOR, RefreshScheduler
from akoya_gateway.grants.refresher import Refresher, as_revoked
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.grants.revocation_queue import RevocationQueue
from akoya_gateway.grants.stale_reports import StaleReports
from akoya_gateway.grants.state_machine import transition
from akoya_gateway.grants.unavailable_grants import UnavailableGrants
from akoya_gateway.log import logger
from akoya_gateway.oauth.outcomes import TokenOutcome, TokenSet
from akoya_gateway.store.cache_entry import VALID_SECONDS
from akoya_gateway.store.encrypted_store import EncryptedStore

REFRESH_WAIT = 5.0
"""Seconds for which a request waits for a refresh while its old bearer is still valid."""

MAX_REFRESH_WAIT = 20.0
"""Seconds for which a request without a valid bearer waits for a refresh. More than a token request may take.

Time in which this process was stopped does not count: the response may be in the socket already.
"""

STORE_RETRY_SECONDS = 5.0
"""Seconds for which writing a new consent is retried. Its authorization code is spent and cannot be used again."""

_NOTHING_TO_DO = frozenset({Action.USE, Action.HOLD, Action.RECONNECT})

log = logger("akoya_gateway.grants")


class GrantManager:
    """Manages the grants of all owners.

    Create it inside a running event loop, `start()` it once the store is open, and `stop()` it before the store closes.

    `providers` maps client names to token endpoints. `connectors` is that of `ProviderHealth`. `names_lifetime` is the
    lifetime of `login_names`. `holder` identifies this process among all that share the store. It must be unique to one
    run of the process; otherwise a restarted process would mistake its predecessor's lease for its own.
    """

    def __init__(
        self,
        store: EncryptedStore,
        providers: Mapping[str, TokenEndpoint],
        tokens: Tokens,
        *,
        clock: Clock = time.time,
        random: Callable[[], float] = random_module.random,
        holder: str | None = None,
        observer: GrantObserver | None = None,
        names_lifetime: float | None = None,
        connectors: Mapping[str, int] = MappingProxyType({}),
        valid: float = VALID_SECONDS,
        max_owners: int = 20_000,
    ) -> None:
        observer = observer or NullGrantObserver()
        self._clock = clock
        self._since = clock()
        """When this configuration was loaded. Earlier failures may have been caused by another configuration."""
        self._observer = observer
        self._tokens = tokens
        self._providers = providers
        self._stale_reports = StaleReports(tokens.assume_lifetime)
        self.repository = GrantRepository(store)
        self.login_names = LoginNames(store, clock, names_lifetime)
        self.health = ProviderHealth(clock, random, observer, connectors)
        self._unavailable = UnavailableGrants(providers, self.health, clock, self._since)
        self.disconnect_listeners = DisconnectListeners()
        self.revocation_queue = RevocationQueue(
            store=store, providers=providers, clock=clock, random=random, health=self.health, observer=observer
        )
        self._cache = GrantCache(
            self.repository, clock, valid=valid, max_entries=max_owners, on_grants_seen=self._on_grants_seen
        )
        self._refresher = Refresher(
            repository=self.repository,
            cache=self._cache,
            providers=providers,
            tokens=tokens,
            clock=clock,
            random=random,
            holder=holder or secrets.token_urlsafe(12),
            health=self.health,
            observer=observer,
            revoke_later=self.revocation_queue.enqueue,
        )
        self._scheduler = RefreshScheduler(
            refresh=lambda grant: self._refresher.flight(self._cache.newest(grant), early=EARLY_FACTOR),
            rates=self._rate,
            refresh_before=tokens.refresh_before,
            clock=clock,
            random=random,
        )

    def start(self) -> None:
        """Start the background work: refreshing ahead of need, and revoking."""
        self.revocation_queue.start()
        if self._tokens.background:
            self._scheduler.start()

    async def stop_background_work(self) -> None:
        """Stop the background work but keep serving requests. For a manager whose successor has started."""
        await self._scheduler.stop()
        await self.revocation_queue.stop()

    async def stop(self, timeout: float = 30.0) -> None:
        """Start no new refreshes, and wait at most `timeout` seconds for those in flight."""
        await self._scheduler.stop()
        running = await self._refresher.drain(timeout)
        if running:
            log.critical("stopped with refreshes in flight", flying=running)
        await self.revocation_queue.stop()

    @property
    def registration_problems(self) -> tuple[RegistrationProblem, ...]:
        """Client registrations that the provider rejects."""
        return self.health.registration_problems

    @property
    def notes(self) -> tuple[str, ...]:
        """Faults of providers, and of our settings for them, for the operator (/readyz).

        They do not make this replica unready: valid tokens are still passed on, the other connectors work, and every
        replica has the same fault.
        """
        return (*self.health.notes, *self.revocation_queue.notes)

    def record_exchange(self, client: Client, outcome: TokenOutcome) -> None:
        """Record the outcome of a code exchange, for `notes`, and log a rejected registration once."""
        log_faults(self.health.record_exchange(client, outcome), None)

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def cached_owners(self) -> int:
        """The number of owners whose grants are cached in memory."""
        return len(self._cache)

    def get_cached(self, owner: str) -> OwnerGrants | None:
        """Return the owner's cached grants, or None. Does not block; on None, call `for_owner`.

        See `cache` for how stale they may be.
        """
        return self._cache.get_cached(owner)

    def cached_entry(self, owner: str) -> CachedGrants | None:
        """Return the owner's cache entry, or None. The caller may keep the entry for as long as it is valid."""
        return self._cache.cached_entry(owner)

    async def for_owner(self, owner: str) -> OwnerGrants:
        """Return the owner's grants.

        Raises:
            StoreUnavailable: The store cannot be read.
            UndecryptableRecord: The key of a record is not in the key ring.
            UnreadableGrant: A record was written by a newer release or is not a grant.
        """
        return await self._cache.for_owner(owner)

    def is_ready(self, grant: Grant) -> bool:
        """Return True if `get_fresh` would return this grant unchanged, so that it need not be called."""
        return self._clock() < self.ready_until(grant)

    def ready_until(self, grant: Grant) -> float:
        """Return the time until which `get_fresh` returns this grant unchanged, or minus infinity if it is not live."""
        return due_at(grant, self._tokens.refresh_before) if grant.state is GrantState.LIVE else float("-inf")

    async def get_fresh(self, grant: Grant) -> Grant:
        """Return a grant whose bearer may be passed on: this one, or its newer version after a refresh.

        Cancelling the caller does not cancel the refresh. Nothing is raised while the old bearer is valid.

        Raises:
            NeedsReconnect: The user must connect the bank again.
            TemporarilyUnavailable: The provider cannot refresh the token now; the grant is kept (503).
            RegistrationFault: The provider rejects the client registration, or the client is not configured; the
                grant is kept.
            UntrustedResponses: The response to the refresh cannot be trusted; the grant is kept (503).
            StoreUnavailable: The store cannot be used.
        """
        if self.is_ready(grant):
            return grant
        grant = self._cache.newest(grant)
        if self.is_ready(grant):
            return grant
        if next_action(grant, self._clock(), self._tokens.refresh_before, since=self._since).action in _NOTHING_TO_DO:
            return self._require_passable(grant)
        flight = self._refresher.flight(grant)
        if grant.usable(self._clock()):
            await asyncio.wait({flight}, timeout=max(REFRESH_WAIT - self._refresher.age(grant), 0.0))
        else:
            await finishes_within(MAX_REFRESH_WAIT, flight)
        if not flight.done():
            return self._require_passable(grant)
        try:
            return self._require_passable(flight.result())
        except Exception:  # On any error, pass on the old bearer while it is valid.
            if grant.usable(self._clock()):
                return grant
            raise

    def _require_passable(self, grant: Grant) -> Grant:
        if grant.usable(self._clock()):
            return grant
        raise self._unavailable.error(grant)

    def offers_reconnect(self, grant: Grant) -> bool:
        """Return True if the user should be offered to connect this bank again, although the grant has not ended."""
        return self._unavailable.offers_reconnect(grant)

    async def replace_rejected(self, grant: Grant) -> Grant:
        """Return the grant with a newer bearer, because the data API rejected its current one (401, code 602).

        The grant is refreshed, unless that has happened since. The bearer is the same if the provider issued it again.
        Cancelling the caller does not cancel the refresh.

        Raises:
            GatewayError: As for `get_fresh`, except that the old bearer is not returned, even if it has not expired.
        """
        rejected = grant.tokens.bearer
        newest = self._cache.newest(grant)
        # Two attempts: the first may join a refresh that was already in flight and had nothing to do.
        for _ in range(2):
            if newest.tokens.bearer != rejected or newest.refreshed_at > grant.refreshed_at:
                break
            flight = self._refresher.flight(newest, stale=rejected)
            if not await finishes_within(MAX_REFRESH_WAIT, flight):
                raise TemporarilyUnavailable(retry_after=1)
            newest = flight.result()
        is_old = newest.tokens.bearer == rejected and newest.refreshed_at <= grant.refreshed_at
        if must_reconnect(newest) or (is_old and newest.tokens.refresh_token is None):
            raise NeedsReconnect(newest)
        if is_old:
            raise self._unavailable.error(newest)
        return newest

    async def report_stale(self, grant: Grant) -> bool:
        """Start a refresh because the data API rejected the bearer that was passed to the upstream (401, code 602).

        Returns:
            True if the report was accepted. The refresh is then in flight; this method does not wait for it.
        """
        grant = self._cache.newest(reported := grant)
        if grant.tokens.bearer != reported.tokens.bearer or not self._stale_reports.accept(grant, self._clock()):
            return False
        self._refresher.flight(grant, stale=grant.tokens.bearer)
        return True

    # --- changing -------------------------------------------------------------------------------------------------

    async def connect(self, owner: str, client: Client, connector: str, tokens: TokenSet) -> Grant:
        """Store the tokens of a new consent, and return its grant, which is durable then.

        Older tokens of the same login are replaced, and a refresh in flight cannot overwrite the new ones. Another
        login (`sub`) becomes a separate grant.

        Raises:
            StoreUnavailable: The store could not be written for `STORE_RETRY_SECONDS` seconds.
        """
        self.health.confirmed_clock.confirm()
        key = GrantKey(owner, client.environment.name, client.name, connector, tokens.sub)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STORE_RETRY_SECONDS  # Not the wall clock, which may be set back.
        pause = 0.05
        while True:
            try:
                written = await self._connect(key, tokens)
            except StoreUnavailable:
                if loop.time() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
                pause *= 2
                continue
            if written is not None:
                log.info("connected", grant=public_id(key.id), connector=connector, environment=key.environment)
                return written

    async def _connect(self, key: GrantKey, tokens: TokenSet) -> Grant | None:
        now = self._clock()
        before = await self.repository.get(key.id)
        if before is None:
            new = Grant(key, tokens, GrantState.LIVE, connected_at=now, refreshed_at=now)
            written = await self.repository.write(new, after=0)
        else:
            written = await self.repository.write(transition(before, Reconnected(tokens), now), after=before.version)
        if written is not None:
            self._cache.put(written)
            self._observer.moved(written, before.state if before is not None else None)
        return written

    async def disconnect(self, grant: Grant) -> Grant:
        """Disconnect the grant at the user's request, and return it as revoked.

        The grant is no longer visible to readers, its refresh token is in the durable revocation queue, and
        `disconnect_listeners` have been called.

        Raises:
            StoreUnavailable: The grant may not be disconnected; try again.
        """
        while True:
            now = self._clock()
            before = await self.repository.get(grant.id)
            if before is None or before.state is GrantState.REVOKED:
                written: Grant | None = as_revoked(before or grant, now)
            else:
                # Queue the revocation first. After a crash in between, a dead grant is still shown; in the other order,
                # a valid token would be left that no record refers to.
                for token in (before.tokens.refresh_token, before.fallback):
                    if token is not None:
                        await self.revocation_queue.enqueue(before, token)
                written = await self.repository.write(
                    transition(before, RevokeRequested(), now), after=before.version, now=now
                )
            if written is not None:
                break
        self._cache.put(written)
        self._observer.moved(written, grant.state)
        self.disconnect_listeners.notify(written)
        try:
            await self.login_names.forget(written)
        except GatewayError as error:  # The grant is disconnected. Its name is for display only.
            log.warning("login name kept", grant=written.public_id, error=error.code)
        log.info("disconnected", grant=grant.public_id, connector=grant.connector, environment=grant.key.environment)
        return written

    def on_disconnect(self, listener: DisconnectListener) -> Callable[[], None]:
        """Call `listener` with each grant that this process disconnects. Return a function that removes it."""
        return self.disconnect_listeners.subscribe(listener)

    # --- wiring ---------------------------------------------------------------------------------------------------

    def _on_grants_seen(self, grants: OwnerGrants) -> None:
        if self._tokens.background:
            self._scheduler.on_grants_seen(grants)

    def _rate(self, environment: str) -> float:
        rates = [
            endpoint.client.environment.rate
            for endpoint in self._providers.values()
            if endpoint.client.environment.name == environment
        ]
        return max(rates, default=1.0)
