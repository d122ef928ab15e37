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
from akoya_gateway.grants.manager import Keeper
from akoya_gateway.log import logger
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import Vault
from akoya_gateway.tasks import ended

EVERY = 6 * 3600.0
"""Seconds between two looks at all grants, whoever has them."""

ASK = 900.0
"""Seconds, about, between a replica's attempts to be the one."""

ABANDONED = 86400.0
"""Seconds since the bearer's end."""

PACE = 0.2
"""Seconds between two that are ended: as many revocations a second as Akoya's sandbox allows requests."""

KIND = "chore"

A_SESSIONS = "own_"
"""How owners begin whom `sessions.Sessions.start` made up, and no others (`authentication.user_identity.owner_of`)."""

Sessions = Callable[[str], Awaitable[Sequence[object]]]
"""The sessions of an owner that have not ended."""

log = logger("akoya_gateway.grants")


class Orphans:
    """`start()` it once the store is open, `stop()` it before the store closes."""

    def __init__(
        self,
        vault: Vault,
        keeper: Keeper,
        sessions: Sessions,
        *,
        clock: Clock,
        random: Callable[[], float] = random_module.random,
        pace: float = PACE,
    ) -> None:
        self._vault = vault
        self._keeper = keeper
        self._sessions = sessions
        self._clock = clock
        self._random = random
        self._pace = pace
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._run(), name="orphans")

    async def stop(self) -> None:
        """What is left is for the next look."""
        await ended(self._work)

    async def turn(self) -> int | None:
        """Look, if nobody has for a while; how many were ended. None: it is not time. Raises `GatewayError`."""
        until = self._clock() + EVERY
        if not await self._vault.put(Record(KIND, "orphans", b"{}", expires_at=until)):
            return None
        ended = await self.sweep()
        await self._keeper.book.tidy(self._clock())
        return ended

    async def sweep(self) -> int:
        """Look at all grants. One that cannot be judged or ended now is left for the next time."""
        ended = 0
        async for grant in self._keeper.book.scan():
            try:
                if not await self._abandoned(grant):
                    continue
                await self._keeper.disconnect(grant)
            except StoreUnavailable:
                raise
            except GatewayError as error:
                log.warning("an abandoned grant is left for later", grant=grant.id, error=error.code)
                continue
            ended += 1
            await asyncio.sleep(self._pace)
        if ended:
            log.info("abandoned grants ended", grants=ended)
        return ended

    async def _abandoned(self, grant: Grant) -> bool:
        if not grant.key.owner.startswith(A_SESSIONS) or self._clock() < grant.tokens.expires_at + ABANDONED:
            return False
        return not await self._sessions(grant.key.owner)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(ASK * (0.5 + self._random()))
            try:
                await self.turn()
            except GatewayError as error:
                log.warning("abandoned grants cannot be looked for", error=error.code)
            except Exception:  # A fault of ours must not end the work for good.
                log.exception("looking for abandoned grants has failed")
