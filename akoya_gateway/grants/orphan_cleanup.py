"""Grants that nobody can reach any more are revoked and forgotten.

Where the session is all that leads to its owner (`identity: session`), the last session's end by idleness or age leaves
the owner's grants behind: nobody can use them, see them or disconnect them, and their refresh tokens live on at Akoya.
Logout ends them itself; this finds the others.

A grant is an orphan when its owner is a session's, no session of that owner lives, and its bearer ended a day ago. That
day is for clocks: grants in use have a bearer that lives, so a machine whose clock is some hours ahead, to which every
session seems to have ended, ends none of them. An owner without a session never gets one again (`endpoints.callback`).

One replica looks, several times a day: the one that gets to write a record which is there until the next time. It also
removes what disconnected grants have left.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Sequence

from akoya_gateway.clock import Clock
from akoya_gateway.errors import GatewayError, StoreUnavailable
from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.log import logger
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.tasks import cancel_and_wait

SWEEP_INTERVAL = 6 * 3600.0
"""Seconds between two looks at all grants, whoever has them."""

RETRY_INTERVAL = 900.0
"""Seconds, about, between a replica's attempts to be the one."""

ABANDONED_AFTER = 86400.0
"""Seconds since the bearer's end."""

PAUSE = 0.2
"""Seconds between two that are ended: as many revocations a second as Akoya's sandbox allows requests."""

KIND = "chore"

SESSION_OWNER_PREFIX = "own_"
"""How owners begin whom `sessions.SessionStore.start` made up, and no others
(`authentication.user_identity.owner_of`)."""

SessionLookup = Callable[[str], Awaitable[Sequence[object]]]
"""The sessions of an owner that have not ended."""

log = logger("akoya_gateway.grants")


class OrphanCleaner:
    """`start()` it once the store is open, `stop()` it before the store closes."""

    def __init__(
        self,
        store: EncryptedStore,
        grants: GrantManager,
        sessions: SessionLookup,
        *,
        clock: Clock,
        random: Callable[[], float] = random_module.random,
        pace: float = PAUSE,
    ) -> None:
        self._store = store
        self._grants = grants
        self._sessions = sessions
        self._clock = clock
        self._random = random
        self._pace = pace
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._run(), name="orphans")

    async def stop(self) -> None:
        """What is left is for the next look."""
        await cancel_and_wait(self._work)

    async def run_once(self) -> int | None:
        """Look, if nobody has for a while; how many were ended. None: it is not time. Raises `GatewayError`."""
        until = self._clock() + SWEEP_INTERVAL
        if not await self._store.put(Record(KIND, "orphans", b"{}", expires_at=until)):
            return None
        ended = await self.sweep()
        await self._grants.repository.purge_tombstones(self._clock())
        return ended

    async def sweep(self) -> int:
        """Look at all grants. One that cannot be judged or ended now is left for the next time."""
        ended = 0
        async for grant in self._grants.repository.scan():
            try:
                if not await self._disconnect_if_abandoned(grant):
                    continue
                await self._grants.disconnect(grant)
            except StoreUnavailable:
                raise
            except GatewayError as error:
                log.warning("abandoned grant postponed", grant=grant.id, error=error.code)
                continue
            ended += 1
            await asyncio.sleep(self._pace)
        if ended:
            log.info("abandoned grants disconnected", grants=ended)
        return ended

    async def _disconnect_if_abandoned(self, grant: Grant) -> bool:
        if (
            not grant.key.owner.startswith(SESSION_OWNER_PREFIX)
            or self._clock() < grant.tokens.expires_at + ABANDONED_AFTER
        ):
            return False
        return not await self._sessions(grant.key.owner)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RETRY_INTERVAL * (0.5 + self._random()))
            try:
                await self.run_once()
            except GatewayError as error:
                log.warning("abandoned grant search postponed", error=error.code)
            except Exception:  # A fault of ours must not end the work for good.
                log.exception("abandoned grant search failed")
