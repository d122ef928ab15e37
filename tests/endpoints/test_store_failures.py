"""A store that fails at any one call of a request: no internal error, no lost session, and no lost bank."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.grants import GrantState
from akoya_gateway.secret import Secret
from tests.support.gateway_in_process import MOST, InProcessEnv, Person

OPERATIONS = ("get", "find", "put", "delete", "take", "count")

Plan = Callable[[int], Callable[[int, str], str | None]]
"""From the number of the call that fails first: whether a call fails "before" or "after" it has had its effect."""
PLANS: dict[str, Plan] = {
    "one response is lost": lambda first: lambda call, verb: "after" if call == first else None,
    "down": lambda first: lambda call, verb: "before" if call >= first else None,
    "read-only": lambda first: (
        lambda call, verb: "before" if call >= first and verb in ("put", "delete", "take") else None
    ),
    "down after a write": lambda first: (
        lambda call, verb: "after" if call == first else "before" if call > first else None
    ),
}


class FailingStore:
    """A store whose calls fail as `plan` says, from the next call of `fail_from` on."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.recover()

    def fail(self, plan: Callable[[int, str], str | None]) -> None:
        self.calls, self._plan = 0, plan

    def recover(self) -> None:
        self.fail(lambda call, verb: None)

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._store, verb)
        if verb not in OPERATIONS:
            return method

        async def call(*args: Any) -> Any:
            failure, self.calls = self._plan(self.calls, verb), self.calls + 1
            if failure == "before":
                raise StoreUnavailable("down")
            result = await method(*args)
            if failure == "after":
                raise StoreUnavailable("the response was lost")
            return result

        return call


async def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[InProcessEnv, FailingStore]:
    monkeypatch.setattr("akoya_gateway.grants.manager.STORE_RETRY_SECONDS", 0.1)
    monkeypatch.setattr("akoya_gateway.sessions.session_store.RESTORE_WAIT", 0.01)
    env = InProcessEnv(folder, "memory://")
    runtime = await env.startup()
    encrypted = runtime.grants.repository._store
    encrypted.store = store = FailingStore(encrypted.store)
    return env, store


async def request(person: Person, route: str, callback: str, csrf: str) -> httpx.Response:
    if route in ("callback", "connect"):
        return await person.go(callback if route == "callback" else "/akoya/connect/mikomo")
    path = "/akoya/logout" if route == "logout" else "/akoya/disconnect/mikomo"
    return await person.http.post(path, data={"csrf": csrf})


@pytest.mark.parametrize("route", ["callback", "connect", "disconnect", "logout"])
async def test_store_that_fails_at_any_call_costs_no_session_and_no_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    env, store = await start(tmp_path, monkeypatch)
    for plan in PLANS.values():
        for first in range(MOST):
            person = Person(env)
            code = await person.connect()
            before, csrf = await person.connection_ids(), str(await person.csrf())
            callback, _ = await person.callback()
            env.gateway.runtime.sessions._cache.clear()

            store.fail(plan(first))
            response = await request(person, route, callback, csrf)
            calls = store.calls
            store.recover()
            await env.settled()
            after = await person.connection_ids()
            failed = response.status_code == 503 or "error=store-unavailable" in response.headers.get("location", "")
            assert failed or response.status_code in (302, 303)
            if route == "callback":
                assert before <= after
                assert failed or len(after) == 2
            elif route == "connect":
                assert before == after
            else:
                if failed:
                    again = await request(person, route, callback, str(await person.csrf()))
                    assert again.status_code == 303, "the form works once the store is back"
                assert await person.connection_ids() == set()
                grant = await env.grant(code)
                assert grant is None or grant.state is GrantState.REVOKED
            if first >= calls:
                break
        else:
            raise AssertionError("the request makes too many calls")
    await env.gateway.shutdown()


async def test_disconnecting_revokes_both_refresh_tokens_of_a_grant_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = await start(tmp_path, monkeypatch)
    person = Person(env)
    grant = await env.grant(await person.connect())
    assert grant is not None and grant.tokens.refresh_token is not None
    repository = env.gateway.runtime.grants.repository
    assert await repository.write(replace(grant, fallback=Secret("refresh-of-before")), after=grant.version)
    assert await person.post("/akoya/disconnect/mikomo", str(await person.csrf())) == 303
    await env.revoked(grant.key.sub)
    async with asyncio.timeout(30):
        while len(env.bank.revoked) < 2:
            await asyncio.sleep(0.001)
    assert sorted(env.bank.revoked) == sorted([grant.tokens.refresh_token.reveal(), "refresh-of-before"])
    await env.gateway.shutdown()
