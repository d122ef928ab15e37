"""Refresh tokens that wait to be revoked at the provider (RFC 7009): a durable queue that outlives restarts.

A record a token, under a digest of the token, so that queueing it twice is queueing it once. Any replica may work on
a record: it claims it by moving `next_at` on, by compare-and-set. Revoking twice does no harm, so a claim that was
lost to a crash is simply taken up again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from akoya_gateway.clock import Clock
from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.interfaces import TokenEndpoint
from akoya_gateway.grants.observer import GrantObserver
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
"""Seconds between looks at the queue."""

CLAIM_SECONDS = 30.0
"""Seconds for which a claimed entry is left alone by the others. Longer than a call takes, or it is made twice, which
does no harm; not much longer, because the claimant may have died.
"""

FIRST_PAUSE, MAX_PAUSE = 5.0, 3600.0

GIVE_UP_AFTER = 30 * 86400.0
"""Seconds after which a token that nobody could revoke is dropped, with an error in the log."""

log = logger("akoya_gateway.grants")


@dataclass(frozen=True, slots=True)
class QueuedRevocation:
    key: str
    grant: str
    client: str
    environment: str | None
    """None in an entry of an earlier release."""
    refresh_token: Secret
    queued_at: float
    next_at: float
    attempts: int = 0
    version: int = field(default=0)


class RevocationQueue:
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
        self._observer = observer
        self._work: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def enqueue(self, grant: Grant, refresh_token: Secret) -> None:
        """Durable when it returns; the revocation itself is tried soon. Raises `StoreUnavailable`."""
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
        await self._store.put(_record(entry))  # False: it is there already.
        self._wake.set()

    async def count(self) -> int:
        return await self._store.count(KIND)

    def start(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._run(), name="revocations")

    async def stop(self) -> None:
        """An attempt that is cut here is repeated by whoever comes next."""
        await cancel_and_wait(self._work)

    async def sweep(self) -> float:
        """Try everything that is due, once. Unix seconds of the next that will be. Raises `StoreUnavailable`."""
        soonest = self._clock() + SWEEP_INTERVAL
        async for record in self._store.scan(KIND):
            entry = _entry(record)
            if entry is not None and self._due(entry) <= self._clock():
                endpoint = self._endpoint(entry)
                entry = await self._attempt(entry)
                if endpoint is not None:
                    # The provider counts these with the refreshes, and nobody waits for a revocation.
                    await asyncio.sleep(1.0 / endpoint.client.environment.rate)
            if entry is not None:
                soonest = min(soonest, self._due(entry))
        return soonest

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self.sweep() - self._clock()
            except OperatorError as error:
                log.warning("revocation queue read failed", error=error.code)
                pause = SWEEP_INTERVAL
            except Exception:  # A fault of ours must not end the work for good.
                log.exception("revocation queue failed")
                pause = SWEEP_INTERVAL
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, 0.5), SWEEP_INTERVAL)):
                    await self._wake.wait()

    def _due(self, entry: QueuedRevocation) -> float:
        """Unix seconds. While the provider is taken to be down only one in a while may find out whether it still is."""
        endpoint = self._endpoint(entry)
        held = self._health.wait(endpoint.client) if endpoint is not None else 0.0
        return max(entry.next_at, self._clock() + held)

    def _endpoint(self, entry: QueuedRevocation) -> TokenEndpoint | None:
        endpoint = self._providers.get(entry.client)
        if endpoint is None or entry.environment not in (None, endpoint.client.environment.name):
            return None
        return endpoint

    async def _attempt(self, entry: QueuedRevocation) -> QueuedRevocation | None:
        """The entry as it is left in the queue; None: it is done, or somebody else has it."""
        claimed = await self._write(replace(entry, next_at=self._clock() + CLAIM_SECONDS, attempts=entry.attempts + 1))
        if claimed is None:
            return None
        answer = await self._request(claimed)
        if isinstance(answer, Revoked):
            await self._store.delete(KIND, entry.key)
            return None
        if self._clock() > entry.queued_at + GIVE_UP_AFTER:
            log.error(
                "revocation abandoned",
                grant=entry.grant,
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
            log.error("revocation client not configured", grant=entry.grant, client=entry.client)
            return ClientRejected("unknown_client")
        if not self._health.enter(endpoint.client):
            return ProviderDown("somebody else is finding out")
        try:
            answer = await endpoint.revoke(entry.refresh_token)
        except Exception as error:
            self._health.leave(endpoint.client)
            log.exception("revocation call failed", grant=entry.grant)
            return OutcomeUnknown(type(error).__name__)
        self._health.record_outcome(endpoint.client, answer)
        outcome = _OUTCOMES[type(answer)]
        self._observer.revoked(endpoint.client.environment.name, outcome)
        said = log.info if isinstance(answer, Revoked) else log.warning
        facts = answer_fields(answer)
        said(
            "revocation finished",
            grant=entry.grant,
            client=entry.client,
            outcome=outcome,
            attempts=entry.attempts,
            **facts,
        )
        return answer

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
