"""Refreshes single grants: one in-flight refresh ("flight") per grant in this process, one lease among all processes.

A flight reads the grant, acquires the lease, sends the refresh request and writes the result. No waiter owns it: if a
waiter is cancelled because its client disconnected, the flight continues. The grant that it returns is durable. When to
refresh is decided by `refresh_policy` and `refresh_scheduler`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Tokens
from akoya_gateway.grants.cache import GrantCache
from akoya_gateway.grants.events import (
    LeaseExpired,
    ProviderResponded,
    Reason,
    RefreshRequested,
    RevokeRequested,
)
from akoya_gateway.grants.grant import Grant, GrantState
from akoya_gateway.grants.held_lease import LEASE_SECONDS, HeldLease
from akoya_gateway.grants.interfaces import TokenEndpoint, token_endpoint_for
from akoya_gateway.grants.late_responses import LateResponses
from akoya_gateway.grants.observer import GrantObserver
from akoya_gateway.grants.provider_health import ProviderHealth
from akoya_gateway.grants.refresh_log import log, log_faults, log_fields, log_refresh, outcome_of
from akoya_gateway.grants.refresh_policy import Action, next_action
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.grants.state_machine import transition
from akoya_gateway.oauth.outcomes import (
    OutcomeUnknown,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from akoya_gateway.tasks import cancel_and_wait

MAX_CHANGE_WAIT = 5.0
"""Seconds to wait for a change by another holder before re-reading the grant."""

FIRST_RETRY, MAX_RETRY = 0.05, 1.0
"""First and longest pause in seconds between attempts to write a result while the store is unavailable."""

RevokeLater = Callable[[Grant, Secret], Awaitable[None]]
"""Queues a refresh token that is in no grant record for revocation. Durable when it returns."""

T = TypeVar("T")


class Refresher:
    """Refreshes grants. `holder` identifies this process among all that share the store; `random` returns [0, 1)."""

    def __init__(
        self,
        *,
        repository: GrantRepository,
        cache: GrantCache,
        providers: Mapping[str, TokenEndpoint],
        tokens: Tokens,
        clock: Clock,
        random: Callable[[], float],
        holder: str,
        health: ProviderHealth,
        observer: GrantObserver,
        revoke_later: RevokeLater,
    ) -> None:
        self._repository = repository
        self._cache = cache
        self._providers = providers
        self._tokens = tokens
        self._clock = clock
        self._random = random
        self._holder = holder
        self._health = health
        self._observer = observer
        self._revoke_later = revoke_later
        self._in_flight: dict[str, asyncio.Task[Grant]] = {}
        self._started: dict[str, float] = {}
        self._late = LateResponses(self._commit, clock)
        self._unsaved = 0
        self._since = clock()
        self._is_stopping = asyncio.Event()

    def flight(self, grant: Grant, *, early: float = 1.0, stale: Secret | None = None) -> asyncio.Task[Grant]:
        """Return the in-flight refresh of this grant. Starts one if there is none.

        Wait for the task with `asyncio.wait` or `shield`; never cancel it. It raises `StoreUnavailable` (nothing is
        lost) and the errors of reading a grant.

        Args:
            grant: The grant to refresh.
            early: As in `refresh_policy.next_action`.
            stale: A bearer that was reported dead before its expiry. If the grant still has it, it is refreshed now.

        Returns:
            A task whose result is the grant as it then is in the store, whatever its state.
        """
        flight = self._in_flight.get(grant.id)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(
                self._refresh(grant, early, stale), name=f"refresh {grant.id}"
            )
            self._in_flight[grant.id] = flight
            self._started[grant.id] = asyncio.get_running_loop().time()
            flight.add_done_callback(lambda done: self._on_refresh_done(grant.id, done))
        return flight

    def age(self, grant: Grant) -> float:
        """Return the seconds since the flight of this grant was started, or 0.0 if there is none."""
        started = self._started.get(grant.id)
        return 0.0 if started is None else asyncio.get_running_loop().time() - started

    async def drain(self, timeout: float) -> int:
        """Wait at most `timeout` seconds for all flights and late responses, and return how many are still running.

        Results of those that have not been written are lost when the process exits.
        """
        self._is_stopping.set()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        # A flight that times out starts to read its late response, so look again after each task.
        while (running := self._running()) and (rest := end - loop.time()) > 0.0:
            await asyncio.wait(running, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        given_up = await self._late.stop_reading()
        return given_up + sum(not task.done() for task in self._running())

    def _running(self) -> set[asyncio.Task[Any]]:
        return {*self._in_flight.values(), *self._late.tasks}

    def _on_refresh_done(self, grant_id: str, flight: asyncio.Task[Grant]) -> None:
        del self._in_flight[grant_id], self._started[grant_id]
        if not flight.cancelled():
            flight.exception()  # Retrieved so that asyncio does not log it if nothing waits for the flight.

    # --- the flight ---------------------------------------------------------------------------------------------

    async def _refresh(self, grant: Grant, early: float, stale: Secret | None) -> Grant:
        current: Grant | None = grant
        had_turn = False
        while current is not None and not self._is_stopping.is_set():
            dead = stale is not None and current.tokens.bearer == stale
            next_step = next_action(
                current, self._clock(), self._tokens.refresh_before, early=early, stale=dead, since=self._since
            )
            if current.lease is not None and current.lease.holder == self._holder:
                current = await self._release(current)
            elif next_step.action is Action.WAIT:
                pause = min(max(next_step.until - self._clock(), 0.0) + 0.01, MAX_CHANGE_WAIT)
                current = self._update_cache(await self._repository.wait_for_change(current, pause))
            elif next_step.action is Action.EXPIRE:
                current = await self._expire(current)
            elif next_step.action is Action.REFRESH:
                if not had_turn:
                    had_turn = True
                    await self._wait_for_turn(current)
                if self._is_stopping.is_set() or not self._may_request(current):
                    return current
                leased = await self._lease(current)
                if leased is None:
                    current = self._update_cache(await self._repository.get(grant.id))
                elif leased.state is GrantState.REFRESHING:
                    current = await self._use(leased)
                    if current.reuse is None:
                        return current
                else:
                    return leased
            else:
                return current
        return current if current is not None else as_revoked(grant, self._clock())

    async def _wait_for_turn(self, grant: Grant) -> None:
        """Wait for this request's turn if the environment is paced after a 429, or until the refresher stops.

        If the grant changes meanwhile, the compare-and-set of the lease fails.
        """
        endpoint = token_endpoint_for(self._providers, grant.key)
        if endpoint is None or grant.tokens.refresh_token is None:
            return
        turn = self._health.wait_for_turn(endpoint.client)
        if turn > 0.0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(turn):
                    await self._is_stopping.wait()

    def _may_request(self, grant: Grant) -> bool:
        endpoint = token_endpoint_for(self._providers, grant.key)
        if endpoint is None:
            log.error("grant client not configured", grant=grant.public_id, client=grant.key.client)
            return False
        # Without a refresh token no request is sent; only the grant's state changes.
        return grant.tokens.refresh_token is None or self._health.enter(endpoint.client, grant.connector)

    def _reuse_grace(self, grant: Grant) -> float:
        endpoint = token_endpoint_for(self._providers, grant.key)
        return 0.0 if endpoint is None else endpoint.client.environment.dialect.reuse_grace

    def _leave_breakers(self, grant: Grant) -> None:
        endpoint = token_endpoint_for(self._providers, grant.key)
        if endpoint is not None:
            self._health.leave(endpoint.client, grant.connector)

    async def _lease(self, grant: Grant) -> Grant | None:
        """Write the lease, and return the grant, or None if another process wrote the grant first."""
        requested = transition(grant, RefreshRequested(self._holder, LEASE_SECONDS), self._clock())
        written: Grant | None = None
        try:
            written = await self._repository.write(requested, after=grant.version)
        finally:
            if written is None or written.state is not GrantState.REFRESHING:
                self._leave_breakers(grant)
        return self._on_written(grant, written)

    async def _release(self, grant: Grant) -> Grant | None:
        """Release a lease of this process that no request is using.

        Such a lease remains if its write appeared to fail because the store became unavailable, but was applied. Only
        this process knows that no request was sent, so it releases the lease as unsent.
        """
        assert grant.lease is not None
        unsent = replace(grant.lease, expires_at=0.0, sent=False)
        freed = transition(replace(grant, lease=unsent), LeaseExpired(), self._clock())
        written = self._on_written(grant, await self._repository.write(freed, after=grant.version))
        return written or self._update_cache(await self._repository.get(grant.id))

    async def _expire(self, grant: Grant) -> Grant | None:
        expired = transition(grant, LeaseExpired(self._reuse_grace(grant)), self._clock())
        written = self._on_written(grant, await self._repository.write(expired, after=grant.version))
        if written is None:
            return self._update_cache(await self._repository.get(grant.id))
        log.warning("refresh lease expired", **log_fields(grant), grant_state=written.state, reason=written.reason)
        return written

    # --- the one use of the refresh token -----------------------------------------------------------------------

    async def _use(self, leased: Grant) -> Grant:
        endpoint = self._providers[leased.key.client]
        started = self._clock()
        review = partial(self._health.trust.review, endpoint.client, leased.tokens.source)
        response = review(await self._call(endpoint, leased))
        self._late.expect(leased, response, review)
        # Write the response before anything else: until then, it exists only in this process.
        current = await self._commit(leased, response)
        fault = self._health.record_outcome(endpoint.client, response, leased.id, leased.connector)
        untrusted = self._health.trust.record_outcome(
            leased.key.environment, leased.connector, leased.id, response, current.untrusted
        )
        log_faults(fault, untrusted)
        outcome = outcome_of(response)
        seconds = self._clock() - started
        self._observer.refreshed(leased.key.environment, leased.connector, outcome, seconds)
        log_refresh(response, leased, current, seconds)
        return current

    async def _call(self, endpoint: TokenEndpoint, leased: Grant) -> TokenOutcome:
        used = _refresh_token(leased)
        lease = HeldLease(self._repository, self._clock, self._holder, leased)
        renewal = asyncio.get_running_loop().create_task(lease.renew())
        try:
            return await endpoint.refresh(used, leased.key.sub, leased.tokens.nonce, lease.is_held)
        except Exception as error:  # A bug. The request may or may not have been sent.
            log.exception("refresh call failed", **log_fields(leased))
            return OutcomeUnknown(type(error).__name__)
        finally:
            await cancel_and_wait(renewal)  # Does not raise, so it cannot prevent the response from being stored.

    async def _commit(self, leased: Grant, response: TokenOutcome) -> Grant:
        """Apply the response to the grant and write it, retrying until the store accepts it.

        No caller gets the new tokens before they are durable.
        """
        grace = self._reuse_grace(leased)
        source = self._providers[leased.key.client].client.token_source
        event = ProviderResponded(
            self._holder, _refresh_token(leased), response, self._random(), self._since, grace, source
        )
        new = _new_refresh_token(response)
        cached: Grant | None = leased
        tried = False

        async def apply() -> Grant:
            nonlocal cached, tried
            again, tried = tried, True
            while True:
                before, cached = cached or await self._read_current(leased), None
                after = transition(before, event, self._clock())
                # A write that raised may have been applied, but not to enough replicas to be durable (Redis with
                # `wait`). If the record already has the new token, write it once more.
                doubted = again and new is not None and before.tokens.refresh_token == new
                if after is before and not doubted:
                    self._update_cache(before)
                    return before
                written = self._on_written(before, await self._repository.write(after, after=before.version))
                if written is not None:
                    return written

        current = await self._until_saved(apply, leased, response)
        if new is None or new == current.tokens.refresh_token:
            return current
        if current.state is GrantState.REVOKED or current.reason == Reason.ANOTHER_SUB:
            await self._until_saved(lambda: self._revoke_later(leased, new), leased, response)
        else:
            # The grant has a newer consent. Revoking the older token family could end that as well, because providers
            # associate consents with users, not with our records.
            log.info("tokens of older consent dropped", **log_fields(leased))
        return current

    async def _read_current(self, leased: Grant) -> Grant:
        """Return the grant in the store, or `leased` as a new record if there is none.

        A disconnected grant leaves a tombstone. If there is no record at all, the store has lost it (for example in a
        failover), and the copy of this process restores it.
        """
        return await self._repository.get(leased.id) or replace(leased, version=0)

    async def _until_saved(self, save: Callable[[], Awaitable[T]], leased: Grant, response: TokenOutcome) -> T:
        retry, unsaved = FIRST_RETRY, 0
        try:
            while True:
                try:
                    return await save()
                except Exception as error:
                    if not unsaved:
                        unsaved = 1
                        self._count_unsaved(1)
                        log.critical(
                            "provider response not saved",
                            **log_fields(leased),
                            outcome=outcome_of(response),
                            error=type(error).__name__,
                            remedy="bring the store back; stopping this process now may cost the user this grant",
                        )
                await asyncio.sleep(retry * (0.5 + self._random()))
                retry = min(retry * 2, MAX_RETRY)
        finally:
            self._count_unsaved(-unsaved)

    def _count_unsaved(self, more: int) -> None:
        if more:
            self._unsaved += more
            self._observer.unsaved(self._unsaved)

    # --- cache and observer -------------------------------------------------------------------------------------

    def _on_written(self, before: Grant, written: Grant | None) -> Grant | None:
        if written is not None:
            self._cache.put(written)
            if written.state is not before.state:
                self._observer.moved(written, before.state)
        return written

    def _update_cache(self, grant: Grant | None) -> Grant | None:
        if grant is not None:
            self._cache.put(grant)
        return grant


def _refresh_token(grant: Grant) -> Secret:
    assert grant.tokens.refresh_token is not None, "no lease is given for a grant without a refresh token"
    return grant.tokens.refresh_token


def _new_refresh_token(response: TokenOutcome) -> Secret | None:
    if isinstance(response, TokensIssued):
        return response.tokens.refresh_token
    return response.refresh_token if isinstance(response, Untrusted) else None


def as_revoked(grant: Grant, now: float) -> Grant:
    """Return the grant as a revoked one."""
    return transition(grant, RevokeRequested(), now)
