"""A process that is stopped (SIGSTOP, a suspended machine) after it got the lease and before it sent the request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from akoya_gateway.grants import GrantState, manager
from akoya_gateway.oauth.outcomes import DownReason, ProviderDown, TokenOutcome
from akoya_gateway.secret import Secret
from tests.support.grants import FlakyStore, GrantEnv, Provider, Reuse, bearer
from tests.support.virtual_time import clock, in_virtual_time


class SlowToConnect(Provider):
    """The connection for the first refresh is established when `connected` is set."""

    def __init__(self) -> None:
        super().__init__(clock, reuse=Reuse.FAMILY)
        self.connected = asyncio.Event()
        self.calls = 0

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        self.calls += 1
        if self.calls == 1:
            await self.connected.wait()
        if may_send is not None and not may_send():
            return ProviderDown("paused", reason=DownReason.PAUSED)
        return await super().refresh(refresh_token, sub, nonce)


@in_virtual_time
async def test_token_that_another_process_may_have_used_is_not_sent_after_a_pause() -> None:
    """The provider would revoke all tokens of the consent."""
    env = GrantEnv(managers=0)
    env.provider = provider = SlowToConnect()
    env.managers = [env.new_manager("running")]
    running_store, env.store = env.store, FlakyStore(env.store.store)
    stopped, stopped_store, env.store = env.new_manager("stopped"), env.store, running_store
    grant = await env.connect()
    await asyncio.sleep(950)
    flight = stopped._refresher.flight(grant)
    while not provider.calls:
        await asyncio.sleep(0.1)
    stopped_store.down = True  # It does not renew its lease.
    while (current := await env.stored(grant)).tokens.bearer == grant.tokens.bearer:
        await env.manager._refresher.flight(current)
        await asyncio.sleep(1)
    stopped_store.down = False
    provider.connected.set()
    assert bearer(await flight) == "bearer-2"
    assert provider.uses == {"refresh-1": 1}
    assert not provider.families[0].ended
    assert (await env.stored(grant)).state is GrantState.LIVE
    assert stopped.notes == ()


async def test_request_that_waits_for_a_refresh_gets_its_result_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "MAX_REFRESH_WAIT", 0.5)
    response, provider_end = socket.socketpair()
    response.setblocking(False)
    loop = asyncio.get_running_loop()

    class Remote(Provider):
        async def refresh(
            self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
        ) -> TokenOutcome:
            loop.call_later(0.1, pause)
            await loop.sock_recv(response, 1)
            return self.act(refresh_token.reveal())

    def pause() -> None:
        """Block the event loop beyond the time that a request waits, as SIGSTOP would."""
        provider_end.send(b"x")
        time.sleep(0.6)

    with response, provider_end:
        env = GrantEnv(managers=0, clock=time.time)
        env.provider = Remote(time.time)
        env.managers = [env.new_manager("paused")]
        for wait in (env.manager.get_fresh, env.manager.replace_rejected):
            grant = await env.connect(sub=wait.__name__)
            ended = replace(grant.tokens, expires_at=time.time() - 1)
            written = await env.manager.repository.write(replace(grant, tokens=ended), after=grant.version)
            assert written is not None
            env.manager._cache.put(written)
            assert bearer(await wait(written)) != bearer(written)


@in_virtual_time
async def test_slow_connection_of_a_running_process_is_used() -> None:
    env = GrantEnv(managers=0)
    env.provider = provider = SlowToConnect()
    env.managers = [env.new_manager("slow")]
    grant = await env.connect()
    await asyncio.sleep(950)
    flight = env.manager._refresher.flight(grant)
    await asyncio.sleep(60)
    provider.connected.set()
    assert bearer(await flight) == "bearer-2"
