"""Responses to refreshes that arrive after the timeout: their tokens are stored, because the old ones are spent.

No request waits for them. After the timeout the grant is `uncertain`, and in every state but `revoked` the state
machine accepts new tokens for the refresh token that was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from akoya_gateway.clock import Clock
from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.refresh_log import log, log_refresh
from akoya_gateway.oauth.outcomes import OutcomeUnknown, TokenOutcome, TokensIssued, Untrusted
from akoya_gateway.tasks import cancel_and_wait


class LateResponses:
    """Reads late responses in the background. `commit` writes those with new tokens; it does not raise."""

    def __init__(self, commit: Callable[[Grant, TokenOutcome], Awaitable[Grant]], clock: Clock) -> None:
        self._commit = commit
        self._clock = clock
        self._reading: set[asyncio.Task[None]] = set()
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The tasks that read a late response, or write one that has been received."""
        return frozenset(self._reading | self._writing)

    def expect(self, leased: Grant, response: TokenOutcome, review: Callable[[TokenOutcome], TokenOutcome]) -> None:
        """Keep reading if `response` is a timeout and its late response can still be read.

        `leased` is the grant with its lease. `review` is applied to the late response, as it was to `response`.
        """
        if isinstance(response, OutcomeUnknown) and response.late is not None:
            reading = self._read(leased, response.late, review)
            task = asyncio.get_running_loop().create_task(reading, name=f"late response {leased.id}")
            self._reading.add(task)
            task.add_done_callback(self._forget)

    async def stop_reading(self) -> int:
        """Stop reading, and return how many responses are abandoned. Those already received are still written."""
        given_up = len(self._reading)
        await cancel_and_wait(*self._reading)
        return given_up

    async def _read(
        self, leased: Grant, late: Awaitable[TokenOutcome], review: Callable[[TokenOutcome], TokenOutcome]
    ) -> None:
        response = review(await late)
        # Any other outcome adds nothing: the grant is uncertain already, and the next refresh decides.
        if isinstance(response, TokensIssued) or (isinstance(response, Untrusted) and response.refresh_token_rotated):
            task = asyncio.current_task()
            assert task is not None
            self._reading.discard(task)
            self._writing.add(task)
            current = await self._commit(leased, response)
            assert leased.lease is not None
            log_refresh(response, leased, current, self._clock() - leased.lease.started_at)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._reading.discard(task)
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # A bug.
            log.error("refresh call failed", exc_info=error)
