"""Grants, fresh when asked. The one object that faces and journeys talk to."""

from __future__ import annotations

import asyncio
import random as random_module
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client, Tokens
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants.cache import Cache, KnownGrants
from akoya_gateway.grants.disconnect_listeners import Departures, Farewell
from akoya_gateway.grants.errors import NeedsReconnect, RegistrationFault, TemporarilyUnavailable, UntrustedResponses
from akoya_gateway.grants.events import Reason, Reconnected, RevokeAsked
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.grants.interfaces import TokenEndpoint, endpoint_of
from akoya_gateway.grants.observer import NullObserver, Observer
from akoya_gateway.grants.provider_health import Fault, Health
from akoya_gateway.grants.refresh_policy import (
    OFFER_AFTER,
    Do,
    advise,
    due_at,
    held_until,
    offered_reconnect,
    told_to_reconnect,
)
from akoya_gateway.grants.refresh_scheduler import EARLY, Background
from akoya_gateway.grants.refresher import Refresher, gone
from akoya_gateway.grants.repository import Book
from akoya_gateway.grants.revocation_queue import Revocations
from akoya_gateway.grants.state_machine import step
from akoya_gateway.log import logger
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.store.cache_entry import VALID
from akoya_gateway.store.encrypted_store import Vault

PATIENCE = 5.0
"""Seconds a request waits for a refresh while its old bearer still lives."""

LONGEST_WAIT = 20.0
"""Seconds a request waits for a refresh when it has no living bearer; more than a token call may take."""

KEEP_TRYING = 5.0
"""Seconds for which a new consent is tried to be written: its code is spent, there is no second chance."""

STALE_AGAIN = 60.0
"""Seconds before a second report of a dead bearer is believed for the same grant; doubled by each that follows."""

_NOTHING_TO_DO = frozenset({Do.USE, Do.HOLD, Do.RECONNECT})

log = logger("akoya_gateway.grants")


class Keeper:
    """Build it inside a running event loop, `start()` it once the store is open, `stop()` it before the store closes.

    `providers` by client name. `holder` names this process among all that share the store: unique to one run of it,
    or a restarted process would take its predecessor's lease for its own.
    """

    def __init__(
        self,
        vault: Vault,
        providers: Mapping[str, TokenEndpoint],
        tokens: Tokens,
        *,
        clock: Clock = time.time,
        random: Callable[[], float] = random_module.random,
        holder: str | None = None,
        observer: Observer | None = None,
        valid: float = VALID,
        owners: int = 20_000,
    ) -> None:
        observer = observer or NullObserver()
        self._clock = clock
        self._since = clock()
        """When this configuration was loaded: what failed before may have been the fault of another."""
        self._observer = observer
        self._tokens = tokens
        self._providers = providers
        self._stale_reports: OrderedDict[str, tuple[str, float, float]] = OrderedDict()
        self.book = Book(vault)
        self.health = Health(clock, random, observer)
        self.departures = Departures()
        self.revocations = Revocations(
            vault=vault, providers=providers, clock=clock, random=random, health=self.health, observer=observer
        )
        self._cache = Cache(self.book, clock, valid=valid, size=owners, seen=self._seen)
        self._refresher = Refresher(
            book=self.book,
            cache=self._cache,
            providers=providers,
            tokens=tokens,
            clock=clock,
            random=random,
            holder=holder or secrets.token_urlsafe(12),
            health=self.health,
            observer=observer,
            revoke_later=self.revocations.enqueue,
        )
        self._background = Background(
            refresh=lambda grant: self._refresher.flight(self._cache.newest(grant), early=EARLY),
            rates=self._rate,
            refresh_before=tokens.refresh_before,
            clock=clock,
            random=random,
        )

    def start(self) -> None:
        """Background work begins: refreshing ahead of need, revoking."""
        self.revocations.start()
        if self._tokens.background:
            self._background.start()

    async def rest(self) -> None:
        """Background work ends; requests are served on. For a keeper whose successor has begun."""
        await self._background.stop()
        await self.revocations.stop()

    async def stop(self, timeout: float = 30.0) -> None:
        """Lands the refreshes in flight, at most `timeout` seconds; starts no new ones."""
        await self._background.stop()
        flying = await self._refresher.land(timeout)
        if flying:
            log.critical("stopped with refreshes in flight", flying=flying)
        await self.revocations.stop()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Client registrations that the provider refuses."""
        return self.health.faults

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should look at, for /readyz: faults of providers, and of our settings for them.

        None of them is a reason to send no requests here: tokens at hand are still passed, the other connectors work,
        and every replica has the same fault.
        """
        still = "tokens at hand are still passed"
        down = [f"environment {name}: the provider does not answer; {still}" for name in self.health.down]
        refused = [
            f"clients.{fault.client}: the provider answers {fault.error}; check client_id and client_secret; {still}"
            for fault in self.health.faults
        ]
        return (*down, *refused, *map(str, self.health.trust.faults))

    # --- reading --------------------------------------------------------------------------------------------------

    def peek(self, owner: str) -> OwnerGrants | None:
        """What the owner holds, without waiting; None: ask `of`. See `cache` for how old it may be."""
        return self._cache.peek(owner)

    def known(self, owner: str) -> KnownGrants | None:
        """As `peek`, to be kept for as long as it holds."""
        return self._cache.known(owner)

    async def of(self, owner: str) -> OwnerGrants:
        """What the owner holds. Raises `StoreUnavailable`, `UndecryptableRecord`, `UnreadableGrant`."""
        return await self._cache.of(owner)

    def ready(self, grant: Grant) -> bool:
        """`fresh` would return this very grant, so there is no need to wait for it."""
        return self._clock() < self.ready_until(grant)

    def ready_until(self, grant: Grant) -> float:
        """Until when `fresh` returns this very grant; minus infinity where it does not even now."""
        return due_at(grant, self._tokens.refresh_before) if grant.state is GrantState.LIVE else float("-inf")

    async def fresh(self, grant: Grant) -> Grant:
        """A grant whose bearer may be passed on: this one, or its successor after a refresh.

        Raises `NeedsReconnect` (the user must act), `TemporarilyUnavailable` and `RegistrationFault` (the grant is
        kept; 503) and `StoreUnavailable`. None of them while the old bearer still lives. Cancelling the caller does
        not cancel the refresh.
        """
        if self.ready(grant):
            return grant
        grant = self._cache.newest(grant)
        if self.ready(grant):
            return grant
        if advise(grant, self._clock(), self._tokens.refresh_before, since=self._since).do in _NOTHING_TO_DO:
            return self._passable(grant)
        flight = self._refresher.flight(grant)
        patience = max(PATIENCE - self._refresher.age(grant), 0.0)
        await asyncio.wait({flight}, timeout=patience if grant.usable(self._clock()) else LONGEST_WAIT)
        if not flight.done():
            return self._passable(grant)
        try:
            return self._passable(flight.result())
        except Exception:  # whatever it is, a bearer that still lives is passed on
            if grant.usable(self._clock()):
                return grant
            raise

    def _passable(self, grant: Grant) -> Grant:
        now = self._clock()
        if grant.usable(now):
            return grant
        if told_to_reconnect(grant):
            raise NeedsReconnect(grant)
        endpoint = endpoint_of(self._providers, grant.key)
        held = self.health.wait(endpoint.client, grant.connector) if endpoint is not None else 0.0
        retry_after = max(ceil(max(held_until(grant, self._since) - now, held)), 1)
        if endpoint is None or any(fault.client == grant.key.client for fault in self.faults):
            raise RegistrationFault(retry_after=retry_after)
        if grant.reason == Reason.UNTRUSTED_ANSWER or self.health.trust.wait(grant.key.environment, grant.connector):
            reconnect = grant.connector if self.offers_reconnect(grant) else None
            raise UntrustedResponses(retry_after=retry_after, reconnect=reconnect)
        raise TemporarilyUnavailable(retry_after=retry_after)

    def offers_reconnect(self, grant: Grant) -> bool:
        """Whether the user should be offered to connect this bank again, although the grant has not ended.

        After `OFFER_AFTER` untrusted responses in a row, of this grant or of its connector: where a breaker lets
        one refresh through for all, a single grant would take long to get so far.
        """
        if grant.state not in {GrantState.LIVE, GrantState.REFRESHING}:
            return False
        concerned = grant.reason == Reason.UNTRUSTED_ANSWER or not grant.usable(self._clock())
        responses = self.health.trust.responses(grant.key.environment, grant.connector)
        return offered_reconnect(grant, self._since) or (concerned and responses >= OFFER_AFTER)

    async def report_stale(self, grant: Grant) -> bool:
        """The upstream has learnt from the data API that the bearer it was passed is dead (401, code 602).

        True: a refresh has been started; nobody waits for it here. 602 also means "not entitled" (akoya.md section
        6), so a bearer is reported once, and each further report of the same grant must come later than the last.
        """
        grant = self._cache.newest(reported := grant)
        if grant.tokens.bearer != reported.tokens.bearer or not self._believes(grant):
            return False
        self._refresher.flight(grant, stale=grant.tokens.bearer)
        return True

    def _believes(self, grant: Grant) -> bool:
        now = self._clock()
        # After a failed attempt the same bearer may be reported again: it has not been replaced.
        token = f"{hash(grant.tokens.bearer)}.{grant.failures}"
        last_token, last_at, pause = self._stale_reports.get(grant.id, ("", 0.0, 0.0))
        if token == last_token or now < last_at + pause:
            return False
        longest = max(self._tokens.assume_lifetime, STALE_AGAIN)
        patient = now < last_at + 2 * longest
        self._stale_reports[grant.id] = (token, now, min(pause * 2 if patient and pause else STALE_AGAIN, longest))
        self._stale_reports.move_to_end(grant.id)
        while len(self._stale_reports) > 10_000:
            self._stale_reports.popitem(last=False)
        return True

    # --- changing -------------------------------------------------------------------------------------------------

    async def connected(self, owner: str, client: Client, connector: str, tokens: TokenSet) -> Grant:
        """A new consent, durable when this returns. The same login's older tokens are replaced, whatever a refresh in
        flight may still bring; another login (`sub`) becomes a grant of its own. Raises `StoreUnavailable` after
        `KEEP_TRYING` seconds.
        """
        key = GrantKey(owner, client.environment.name, client.name, connector, tokens.sub)
        deadline = self._clock() + KEEP_TRYING
        pause = 0.05
        while True:
            try:
                written = await self._connect(key, tokens)
            except StoreUnavailable:
                if self._clock() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
                pause *= 2
                continue
            if written is not None:
                log.info("connected", grant=key.id, connector=connector, environment=key.environment)
                return written

    async def _connect(self, key: GrantKey, tokens: TokenSet) -> Grant | None:
        now = self._clock()
        before = await self.book.get(key.id)
        if before is None:
            new = Grant(key, tokens, GrantState.LIVE, connected_at=now, refreshed_at=now)
            written = await self.book.write(new, after=0)
        else:
            written = await self.book.write(step(before, Reconnected(tokens), now), after=before.version)
        if written is not None:
            self._cache.put(written)
            self._observer.moved(written, before.state if before is not None else None)
        return written

    async def disconnect(self, grant: Grant) -> Grant:
        """The user ends the grant: readers never see it again, its refresh token is in the durable queue for
        revocation, and `departures` have been told. Returns it as revoked. Raises `StoreUnavailable`: try again.
        """
        while True:
            now = self._clock()
            before = await self.book.get(grant.id)
            if before is None or before.state is GrantState.REVOKED:
                written: Grant | None = gone(before or grant, now)
            else:
                # Queued first: a crash in between leaves a dead grant that is still shown, not a living token that
                # nobody knows of.
                await self._queue(before)
                written = await self.book.write(step(before, RevokeAsked(), now), after=before.version, now=now)
            if written is not None:
                break
        self._cache.put(written)
        self._observer.moved(written, grant.state)
        self.departures.tell(written)
        log.info("disconnected", grant=grant.id, connector=grant.connector, environment=grant.key.environment)
        return written

    async def _queue(self, grant: Grant) -> None:
        endpoint = endpoint_of(self._providers, grant.key)
        nowhere = endpoint is not None and endpoint.client.environment.revocation_endpoint is None
        if grant.tokens.refresh_token is not None and not nowhere:
            await self.revocations.enqueue(grant, grant.tokens.refresh_token)

    def on_gone(self, farewell: Farewell) -> Callable[[], None]:
        """Call `farewell` with each grant that is disconnected through this process; returns what ends that."""
        return self.departures.on_gone(farewell)

    # --- wiring ---------------------------------------------------------------------------------------------------

    def _seen(self, grants: OwnerGrants) -> None:
        if self._tokens.background:
            self._background.seen(grants)

    def _rate(self, environment: str) -> float:
        rates = [
            endpoint.client.environment.rate
            for endpoint in self._providers.values()
            if endpoint.client.environment.name == environment
        ]
        return max(rates, default=1.0)
