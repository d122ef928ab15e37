"""A provider that responds after the timeout: the rotated refresh token is stored, because the old one is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.oauth.outcomes import DistrustReason, OutcomeUnknown, Refused, TokenOutcome, TokensIssued, Untrusted
from akoya_gateway.secret import Secret
from tests.support.grants import GrantEnv, Provider, Reuse, bearer, client
from tests.support.virtual_time import in_virtual_time


class Stopped(Provider):
    """A provider that acts `after` seconds after the gateway's timeout, as if it had been stopped until then."""

    after = 12.0
    respond: Callable[[TokenOutcome], TokenOutcome] | None = None

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        outcome = await super().refresh(refresh_token, sub)
        return replace(outcome, late=self._late(refresh_token)) if isinstance(outcome, OutcomeUnknown) else outcome

    async def _late(self, refresh_token: Secret) -> TokenOutcome:
        await asyncio.sleep(self.after)
        outcome = self.act(refresh_token.reveal())
        return outcome if self.respond is None else self.respond(outcome)


async def time_out(env: GrantEnv, respond: Callable[[TokenOutcome], TokenOutcome] | None) -> Grant:
    """Let a refresh time out, and return the grant as it is stored then."""
    env.provider = provider = Stopped(env.clock, reuse=Reuse.FAMILY)
    provider.respond = respond
    provider.faults = ["never arrived"]
    env.managers = [env.new_manager("holder-1")]
    grant = await env.connect()
    await asyncio.sleep(850)
    assert bearer(await env.manager.get_fresh(grant)) == "bearer-1"
    stored = await env.stored(grant)
    assert stored.state is GrantState.UNCERTAIN
    return stored


async def nothing(env: GrantEnv, grant: Grant) -> None: ...


async def disconnect(env: GrantEnv, grant: Grant) -> None:
    await env.manager.disconnect(grant)


async def reconnect(env: GrantEnv, grant: Grant) -> None:
    await env.manager.connect(grant.key.owner, client, "mikomo", env.provider.consent())


async def store_down(env: GrantEnv, grant: Grant) -> None:
    env.store.down = True
    asyncio.get_running_loop().call_later(20, setattr, env.store, "down", False)


async def stop(env: GrantEnv, grant: Grant) -> None:
    await env.manager.stop()
    assert env.manager._refresher._running() == set()


async def stop_too_early(env: GrantEnv, grant: Grant) -> None:
    began = env.clock()
    await env.manager.stop(timeout=8.0)
    assert env.clock() - began == pytest.approx(8.0, abs=0.5)


def unjudged(outcome: TokenOutcome) -> TokenOutcome:
    assert isinstance(outcome, TokensIssued)
    return Untrusted("no key", outcome.tokens.refresh_token, DistrustReason.KEYS)


def refused(outcome: TokenOutcome) -> TokenOutcome:
    return Refused("invalid_grant")


@pytest.mark.parametrize(
    ("meanwhile", "respond", "state", "refresh_token"),
    [
        (nothing, None, GrantState.LIVE, "refresh-2"),
        (nothing, unjudged, GrantState.LIVE, "refresh-2"),
        (store_down, None, GrantState.LIVE, "refresh-2"),
        (reconnect, None, GrantState.LIVE, "refresh-2"),
        (disconnect, None, GrantState.REVOKED, None),
        # An error adds nothing: it may be about a request that another use of the token has overtaken.
        (nothing, refused, GrantState.UNCERTAIN, "refresh-1"),
        # A process that stops waits for the provider, but not without a limit.
        (stop, None, GrantState.LIVE, "refresh-2"),
        (stop_too_early, None, GrantState.UNCERTAIN, "refresh-1"),
    ],
)
def test_late_response_with_new_tokens_is_stored(
    meanwhile: Callable[[GrantEnv, Grant], Awaitable[None]],
    respond: Callable[[TokenOutcome], TokenOutcome] | None,
    state: GrantState,
    refresh_token: str | None,
) -> None:
    @in_virtual_time
    async def main() -> None:
        env = GrantEnv()
        uncertain = await time_out(env, respond)
        await meanwhile(env, uncertain)
        await asyncio.sleep(40)
        stored = await env.stored(uncertain)
        kept = stored.tokens.refresh_token
        assert (stored.state, kept and kept.reveal()) == (state, refresh_token)
        if meanwhile is disconnect:
            assert await env.manager.revocation_queue.count() == 2, "the late token is revoked as well"
        assert env.provider.uses == {"refresh-1": 1}

    main()


@in_virtual_time
async def test_stop_that_begins_before_the_timeout_waits_for_the_late_response() -> None:
    env = GrantEnv()
    env.provider = provider = Stopped(env.clock, delay=10.0, reuse=Reuse.FAMILY)
    provider.faults = ["never arrived"]
    env.managers = [env.new_manager("holder-1")]
    grant = await env.connect()
    await asyncio.sleep(850)
    env.manager._refresher.flight(grant)
    await asyncio.sleep(1)
    await env.manager.stop()
    stored = await env.stored(grant)
    assert (stored.state, stored.tokens.refresh_token) == (GrantState.LIVE, Secret("refresh-2"))
    assert env.provider.uses == {"refresh-1": 1}
