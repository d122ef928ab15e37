"""Tests of requests that the server cancels at any suspension, with each store.

No token is lost, no spent token is kept as valid, a returning client gets a correct response and can continue, and no
task is left behind in the process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from akoya_gateway.grants import GrantState
from akoya_gateway.secret import Secret
from tests.support.cancellation import cut
from tests.support.gateway_in_process import MOST, InProcessEnv, Person, env, turns
from tests.support.redis_servers import own_redis

__all__ = ["env", "own_redis"]

LATER = (None, 0, 1, 3, 5, 7, 9) if os.environ.get("AKOYA_SOAK") == "full" else (None, 0, 3, 7)
"""Event loop iterations between a suspension and its cancellation."""

Journey = Callable[[InProcessEnv, int, int | None], Awaitable[bool]]
"""Runs one flow, cancelled at the given suspension and so many iterations later (see `cancellation.cut`).

Returns True if the flow finished before that suspension.
"""


async def callback(env: InProcessEnv, at: int, later: int | None) -> bool:
    person = Person(env)
    path, code = await person.callback()
    done, _ = await cut(person.go(path), at, later)
    await env.settled()
    grant = await env.grant(code)
    if code in env.bank.spent_codes:
        assert grant is not None, "the code was exchanged but no grant was stored"
        assert grant.state is GrantState.LIVE
        assert grant.tokens.refresh_token == Secret(env.bank.family(code).living)
    again = await person.go(path)
    await env.settled()
    if "location" in again.headers and "error" not in again.headers["location"]:
        assert grant is None
        assert await env.grant(code) is not None
    else:
        assert again.json()["type"].endswith(":unknown-state")
        assert env.bank.uses[code] == 0
    return done


async def refresh(env: InProcessEnv, at: int, later: int | None) -> bool:
    person = Person(env)
    code = await person.connect()
    env.later += env.bank.life - 5
    done, _ = await cut(person.go("/x"), at, later)
    await env.settled()
    family, grant = env.bank.family(code), await env.grant(code)
    assert grant is not None
    assert grant.state is GrantState.LIVE
    assert grant.tokens.refresh_token == Secret(family.living)
    assert (await person.go("/x")).text == family.bearers[-1]
    assert max(env.bank.uses.values()) == 1
    return done


async def leave(path: str, env: InProcessEnv, at: int, later: int | None) -> bool:
    person = Person(env)
    codes = [await person.connect(), await person.connect()]
    csrf = await person.csrf()
    assert csrf is not None
    done, _ = await cut(person.post(path, csrf), at, later)
    csrf = await person.csrf()
    # Submit again if the first request did not end the session with all its grants.
    assert csrf is None or await person.post(path, csrf) == 303
    for code in codes:
        grant = await env.grant(code)
        assert grant is not None
        assert grant.state is GrantState.REVOKED
        await env.revoked(code)
    await env.settled()
    return done


async def disconnect(env: InProcessEnv, at: int, later: int | None) -> bool:
    return await leave("/akoya/disconnect/mikomo", env, at, later)


async def logout(env: InProcessEnv, at: int, later: int | None) -> bool:
    return await leave("/akoya/logout", env, at, later)


@pytest.mark.parametrize("journey", [callback, refresh, disconnect, logout])
async def test_request_may_be_cancelled_anywhere(env: InProcessEnv, journey: Journey) -> None:
    for later in LATER:
        for at in range(MOST):
            if await journey(env, at, later):
                break
        else:
            pytest.fail("the work was cancelled at every suspension")


@pytest.mark.parametrize("env", ["sqlite"], indirect=True)
async def test_code_that_is_spent_while_the_engine_closes_still_becomes_a_grant(
    env: InProcessEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, bank = env.gateway.runtime, env.bank
    known, new = Person(env), Person(env)
    await known.connect()
    path, code = await new.callback()
    session, refresh, exchange = (
        Held(monkeypatch, target, name)
        for target, name in ((runtime.sessions, "start"), (bank, "refresh"), (bank, "exchange"))
    )
    env.later += bank.life - 5
    async with asyncio.timeout(30):
        using = asyncio.create_task(known.go("/x"))
        connecting = asyncio.create_task(new.go(path))
        await refresh.called.wait()
        await session.called.wait()
        closing = asyncio.create_task(env.gateway.shutdown())
        await turns(20)  # shutdown is now waiting for the refresh
        session.go.set()
        await exchange.called.wait()
        refresh.go.set()
        await using
        await turns(20)
        exchange.go.set()
        await connecting
        await closing
    await env.gateway.startup()
    assert await env.grant(code) is not None


class Held:
    """Holds the calls of a method until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
        self.called, self.go = asyncio.Event(), asyncio.Event()
        self._method: Callable[..., Awaitable[Any]] = getattr(target, name)
        monkeypatch.setattr(target, name, self._call)

    async def _call(self, *given: Any, **named: Any) -> Any:
        self.called.set()
        await self.go.wait()
        return await self._method(*given, **named)
