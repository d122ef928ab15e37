"""Finds grants that no user can reach any more, and disconnects them.

With `identity: session`, the session is the only link to its owner. When the last session of an owner expires by
idleness or age, the owner's grants remain. They cannot be used, seen or disconnected any more, but their refresh tokens
are still valid at Akoya. Logout disconnects grants itself; this module finds the others.

A grant is an orphan if its owner was created by a session, that owner has no session left, and the bearer expired at
least a day ago. The day allows for wrong clocks. To a machine whose clock is some hours ahead, all sessions seem
expired; but grants in use have a valid bearer, so none of them is disconnected. An owner without a session never gets
one again (`endpoints.callback`).

A clock may be wrong by more than that, for example after a boot without NTP. Every grant would then seem an orphan. So
a process searches only if tokens have been issued to it, which a wrong clock prevents, and the clock has not been set
since (`confirmed_clock`).

Several times a day one replica searches: the one that succeeds in writing a record that expires before the next search.
It also deletes the tombstones of disconnected grants.
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
"""Minimum seconds between two searches, across all replicas."""

RETRY_INTERVAL = 900.0
"""Approximate seconds between a replica's attempts to start the search."""

ABANDONED_AFTER = 86400.0
"""Seconds after the expiry of the bearer before a grant can be an orphan."""

PAUSE = 0.2
"""Seconds between two disconnects, so that the revocations stay within the request rate of Akoya's sandbox."""

KIND = "chore"

SESSION_OWNER_PREFIX = "own_"
"""Prefix of the owners that `sessions.SessionStore.start` generates. No other owner has it
(`authentication.user_identity.owner_of`)."""

SessionLookup = Callable[[str], Awaitable[Sequence[object]]]
"""Returns the active sessions of an owner."""

log = logger("akoya_gateway.grants")


class OrphanCleaner:
    """Disconnects orphaned grants in the background.

    `start()` it once the store is open, and `stop()` it before the store closes.
    """

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
        """Start the background task."""
        self._work = asyncio.get_running_loop().create_task(self._run(), name="orphans")

    async def stop(self) -> None:
        """Cancel the background task. The next search handles the remaining orphans."""
        await cancel_and_wait(self._work)

    async def run_once(self) -> int | None:
        """Search if no replica has done so within `SWEEP_INTERVAL`.

        Returns:
            The number of disconnected grants, or None if it is too early for a search.

        Raises:
            GatewayError: The store is unavailable, for example.
        """
        until = self._clock() + SWEEP_INTERVAL
        if not await self._store.put(Record(KIND, "orphans", b"{}", expires_at=until)):
            return None
        ended = await self.sweep()
        await self._grants.repository.purge_tombstones(self._clock())
        return ended

    async def sweep(self) -> int:
        """Disconnect all orphans, and return their number.

        A grant that cannot be checked or disconnected is left for the next search.
        """
        ended = 0
        async for grant in self._grants.repository.scan():
            try:
                if not await self._is_abandoned(grant):
                    continue
                await self._grants.disconnect(grant)
            except StoreUnavailable:
                raise
            except GatewayError as error:
                log.warning("abandoned grant postponed", grant=grant.public_id, error=error.code)
                continue
            ended += 1
            await asyncio.sleep(self._pace)
        if ended:
            log.info("abandoned grants disconnected", grants=ended)
        return ended

    async def _is_abandoned(self, grant: Grant) -> bool:
        if (
            not grant.key.owner.startswith(SESSION_OWNER_PREFIX)
            or self._clock() < grant.tokens.expires_at + ABANDONED_AFTER
        ):
            return False
        return not await self._sessions(grant.key.owner)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RETRY_INTERVAL * (0.5 + self._random()))
            if not self._grants.health.confirmed_clock.is_confirmed:
                continue
            try:
                await self.run_once()
            except GatewayError as error:
                log.warning("abandoned grant search postponed", error=error.code)
            except Exception:  # A bug must not stop the background task.
                log.exception("abandoned grant search failed")
