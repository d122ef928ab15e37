"""A durable queue of refresh tokens to revoke at the provider (RFC 7009).

There is one record per token, with a digest of the token as its key, so that queueing a token twice has no effect. Any
replica may process a record. It claims the record by advancing `next_at` with a compare-and-set. Revoking twice does no
harm, so if a replica crashes, its claim expires and the revocation is retried.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from akoya_gateway.clock import Clock, remaining
from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant, public_id
from akoya_gateway.grants.interfaces import TokenEndpoint, token_endpoint_for
from akoya_gateway.grants.observer import GrantObserver, NullGrantObserver
from akoya_gateway.grants.provider_health import ProviderHealth
from akoya_gateway.log import logger
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    RevocationOutcome,
    Revoked,
    answer_fields,
)
from akoya_gateway.secret import Secret
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.tasks import cancel_and_wait

KIND = "revocation"

SWEEP_INTERVAL = 30.0
"""Longest pause in seconds between two sweeps of the queue."""

CLAIM_SECONDS = 30.0
"""Seconds for which a claimed entry is not processed by other replicas.

Longer than a request takes, because otherwise the request is sent twice (which does no harm). Not much longer, because
the replica with the claim may have crashed.
"""

FIRST_PAUSE, MAX_PAUSE = 5.0, 3600.0
"""First and longest pause in seconds between attempts for one token, before jitter."""

GIVE_UP_AFTER = 30 * 86400.0
"""Seconds after which a token that could not be revoked is dropped and an error is logged."""

log = logger("akoya_gateway.grants")


@dataclass(frozen=True, slots=True)
class QueuedRevocation:
    """A queued refresh token. `grant` is the grant ID; times are Unix seconds."""

    key: str
    grant: str
    client: str
    environment: str | None
    """None in an entry that an earlier release wrote."""
    refresh_token: Secret
    queued_at: float
    next_at: float
    attempts: int = 0
    version: int = field(default=0)


class RevocationQueue:
    """Revokes queued refresh tokens in the background. `start()` it once the store is open."""

    def __init__(
        self,
        *,
        store: EncryptedStore,
        providers: Mapping[str, TokenEndpoint],
        clock: Clock,
        random: Callable[[], float],
        health: ProviderHealth,
        observer: GrantObserver,
    ) -> None:
        self._store = store
        self._providers = providers
        self._clock = clock
        self._random = random
        self._health = health
        self._own_health = ProviderHealth(clock, random, NullGrantObserver())
        """Circuit breakers for the revocation endpoints. Their failures must not hold back refreshes."""
        self._observer = observer
        self._work: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.waiting = 0
        """The number of queued revocations after the last sweep, of all processes that share the store."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator has to correct (/readyz)."""
        return tuple(
            f"clients.{one.client}: the revocation endpoint returns {one.error}; revocations are repeated for 30 days"
            for one in self._own_health.registration_problems
        )

    async def enqueue(self, grant: Grant, refresh_token: Secret) -> None:
        """Queue a refresh token of the grant for revocation. The entry is durable when this returns.

        Does nothing if the environment has no revocation endpoint.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        endpoint = token_endpoint_for(self._providers, grant.key)
        if endpoint is not None and endpoint.client.environment.revocation_endpoint is None:
            return
        now = self._clock()
        entry = QueuedRevocation(
            _key(refresh_token),
            grant.id,
            grant.key.client,
            grant.key.environment,
            refresh_token,
            queued_at=now,
            next_at=now,
        )
        await self._store.put(_record(entry))  # Returns False if the token is already queued.
        self._wake.set()

    async def count(self) -> int:
        """Return the number of queued revocations."""
        return await self._store.count(KIND)

    def start(self) -> None:
        """Start the background task."""
        self._work = asyncio.get_running_loop().create_task(self._run(), name="revocations")

    async def stop(self) -> None:
        """Cancel the background task. An attempt in progress is repeated later, by this or another process."""
        await cancel_and_wait(self._work)

    async def sweep(self) -> float:
        """Try every due revocation once, and return when the next one is due (Unix seconds).

        The result is at most `SWEEP_INTERVAL` after the start of the sweep.

        Raises:
            StoreUnavailable: The store cannot be read or written.
        """
        soonest = self._clock() + SWEEP_INTERVAL
        waiting = 0
        async for record in self._store.scan(KIND):
            entry = _entry(record)
            if entry is not None and self._due(entry) <= self._clock():
                endpoint = self._endpoint(entry)
                entry = await self._attempt(entry)
                if endpoint is not None:
                    # The provider counts revocations towards the same rate limit as refreshes. No user waits for them.
                    await asyncio.sleep(1.0 / endpoint.client.environment.rate)
            if entry is not None:
                waiting += 1
                soonest = min(soonest, self._due(entry))
        self.waiting = waiting
        return soonest

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self.sweep() - self._clock()
            except OperatorError as error:
                log.warning("revocation queue read failed", error=error.code)
                pause = SWEEP_INTERVAL
            except Exception:  # A bug must not stop the background task.
                log.exception("revocation queue failed")
                pause = SWEEP_INTERVAL
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, 0.5), SWEEP_INTERVAL)):
                    await self._wake.wait()

    def _due(self, entry: QueuedRevocation) -> float:
        """Return when the entry is due (Unix seconds). While the circuit breaker is open, that is its next probe."""
        endpoint = self._endpoint(entry)
        held = 0.0
        if endpoint is not None:
            held = max(self._health.wait(endpoint.client), self._own_health.wait(endpoint.client))
        now = self._clock()
        return now + max(remaining(entry.next_at, now, MAX_PAUSE), held)

    def _endpoint(self, entry: QueuedRevocation) -> TokenEndpoint | None:
        endpoint = self._providers.get(entry.client)
        if endpoint is None or entry.environment not in (None, endpoint.client.environment.name):
            return None
        return endpoint

    async def _attempt(self, entry: QueuedRevocation) -> QueuedRevocation | None:
        """Try to revoke the token, and return the entry as it remains in the queue.

        Return None if the entry is done or another replica has claimed it.
        """
        claimed = await self._write(replace(entry, next_at=self._clock() + CLAIM_SECONDS, attempts=entry.attempts + 1))
        if claimed is None:
            return None
        response = await self._request(claimed)
        if isinstance(response, Revoked):
            await self._store.delete(KIND, entry.key)
            return None
        if self._clock() > entry.queued_at + GIVE_UP_AFTER:
            log.error(
                "revocation abandoned",
                grant=public_id(entry.grant),
                client=entry.client,
                attempts=claimed.attempts,
                remedy="end the consent in the Data Recipient Hub",
            )
            await self._store.delete(KIND, entry.key)
            return None
        pause = min(FIRST_PAUSE * 2.0 ** min(claimed.attempts - 1, 20), MAX_PAUSE) * (0.5 + 0.5 * self._random())
        return await self._write(replace(claimed, next_at=self._clock() + pause))

    async def _request(self, entry: QueuedRevocation) -> RevocationOutcome:
        endpoint = self._endpoint(entry)
        if endpoint is None:
            log.error("revocation client not configured", grant=public_id(entry.grant), client=entry.client)
            return ClientRejected("unknown_client")
        if self._own_health.wait(endpoint.client) > 0.0 or not self._health.enter(endpoint.client):
            return ProviderDown("another request is probing the provider")
        self._own_health.enter(endpoint.client)
        try:
            response = await endpoint.revoke(entry.refresh_token)
        except Exception as error:
            self._health.leave(endpoint.client)
            self._own_health.leave(endpoint.client)
            log.exception("revocation call failed", grant=public_id(entry.grant))
            return OutcomeUnknown(type(error).__name__)
        self._own_health.record_outcome(endpoint.client, response)
        if isinstance(response, Revoked) or (isinstance(response, ProviderDown) and response.busy):
            self._health.record_outcome(endpoint.client, response)
        else:
            self._health.leave(endpoint.client)
        outcome = _OUTCOMES[type(response)]
        self._observer.revoked(endpoint.client.environment.name, outcome)
        log_event = log.info if isinstance(response, Revoked) else log.warning
        facts = answer_fields(response)
        log_event(
            "revocation finished",
            grant=public_id(entry.grant),
            client=entry.client,
            outcome=outcome,
            attempts=entry.attempts,
            **facts,
        )
        return response

    async def _write(self, entry: QueuedRevocation) -> QueuedRevocation | None:
        written = replace(entry, version=entry.version + 1)
        return written if await self._store.put(_record(written)) else None


_OUTCOMES: dict[type, str] = {
    Revoked: "revoked",
    ClientRejected: "client-rejected",
    ProviderDown: "provider-down",
    OutcomeUnknown: "outcome-unknown",
}


def _key(refresh_token: Secret) -> str:
    digest = hashlib.sha256(b"akoya-gateway revocation\0" + refresh_token.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def _record(entry: QueuedRevocation) -> Record:
    document = {
        "format": 1,
        "grant": entry.grant,
        "client": entry.client,
        "environment": entry.environment,
        "refresh_token": entry.refresh_token.reveal(),
        "queued_at": entry.queued_at,
        "next_at": entry.next_at,
        "attempts": entry.attempts,
    }
    return Record(KIND, entry.key, json.dumps(document, separators=(",", ":")).encode(), max(entry.version, 1))


def _entry(record: Record) -> QueuedRevocation | None:
    try:
        document = json.loads(record.body)
        return QueuedRevocation(
            key=record.key,
            grant=document["grant"],
            client=document["client"],
            environment=document.get("environment"),
            refresh_token=Secret(document["refresh_token"]),
            queued_at=document["queued_at"],
            next_at=document["next_at"],
            attempts=document["attempts"],
            version=record.version,
        )
    except (ValueError, KeyError, TypeError):
        log.error("revocation record skipped", key=record.key)
        return None
