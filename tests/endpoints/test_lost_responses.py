"""Tests of callbacks that fail or whose response is lost.

The user always gets the previously connected banks back, at once or by signing in again with the same login.
A failure of the recovery mechanism never costs the tokens of that sign-in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from akoya_gateway.config.model import OtherLogin
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.sessions.recovery import KIND
from akoya_gateway.store.base import Record
from akoya_gateway.store.encryption import DamagedRecord
from tests.support.cancellation import cut
from tests.support.gateway_in_process import MOST, InProcessEnv, Person, env, turns
from tests.support.redis_servers import own_redis

__all__ = ["env", "own_redis"]


async def back(person: Person, login: str) -> str:
    """Sign in with this login and return the redirect location."""
    path, code = await person.callback()
    location = (await person.go(path.replace(code, login))).headers["location"]
    person.env.bank.spent_codes.discard(login)  # This test bank uses the code as the login.
    return location


async def banks(person: Person) -> int:
    return len(json.loads((await person.go("/akoya/")).content)["connections"])


async def lost(person: Person) -> str:
    """Connect a bank, drop the callback response and return the login."""
    cookies = httpx.Cookies(person.http.cookies)
    path, code = await person.callback()
    await person.go(path)
    person.http.cookies = cookies
    person.env.bank.spent_codes.discard(code)
    return code


async def test_callback_that_is_cut_anywhere_costs_no_bank(env: InProcessEnv) -> None:
    for later in (None, 0, 3, 7):
        for at in range(MOST):
            person = Person(env)
            await person.connect()
            path, code = await person.callback()
            cookies = httpx.Cookies(person.http.cookies)
            done, _ = await cut(person.go(path), at, later)
            await env.settled()
            person.http.cookies = cookies
            env.bank.spent_codes.discard(code)
            assert "error" not in await back(person, code)
            assert await banks(person) == 2
            if done:
                break
        else:
            pytest.fail("the callback was cut at every suspension")


def altered(body: bytes) -> Callable[[Record], Record]:
    return lambda record: replace(record, body=body)


def failing(error: Exception) -> Callable[[Record], Record]:
    def fail(record: Record) -> Record:
        raise error

    return fail


@pytest.mark.parametrize("env", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "trouble",
    [failing(StoreUnavailable()), failing(UndecryptableRecord("old")), failing(DamagedRecord("cut")),
     altered(b'{"format":2,"where":{}}'), altered(b'{"format":1}'), altered(b'{"format":1,"owner":7}'), altered(b"{}"),
     altered(b"[]"), altered(b"\xff"), altered(b"")],
)  # fmt: skip
async def test_unreadable_recovery_entry_loses_no_tokens(
    env: InProcessEnv, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Record], Record]
) -> None:
    person = Person(env)
    await person.connect()
    login = await lost(person)
    store = env.gateway.runtime.grants.repository._store
    get = store.store.get

    async def get_with_trouble(self: object, kind: str, key: str) -> Record | None:
        record = await get(kind, key)
        if kind != KIND or record is None:
            return None if record is None else store._decrypt(record)
        return trouble(store._decrypt(record))

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "get", get_with_trouble)
        assert "error" not in await back(person, login)
    assert await banks(person) == 1


VERBS = ("get", "put", "find", "delete", "take")


@pytest.mark.parametrize("env", ["memory"], indirect=True)
@pytest.mark.parametrize("how", ["not done", "done and not told", "the first done and not told"])
@pytest.mark.parametrize("journey", ["connecting", "coming back"])
@pytest.mark.parametrize("failing", [1, 4])
async def test_store_that_fails_at_any_step_costs_no_bank(
    env: InProcessEnv, monkeypatch: pytest.MonkeyPatch, how: str, journey: str, failing: int
) -> None:
    """Fail `failing` consecutive store calls, starting at each store call of the callback in turn."""
    store = env.gateway.runtime.grants.repository._store.store
    calls, at = 0, -1

    def faulty(verb: str) -> Callable[..., Awaitable[Any]]:
        work = getattr(store, verb)

        async def call(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if at < 0 or not at <= calls - 1 < at + failing:
                return await work(*given, **named)
            if how != "not done" and (calls - 1 == at or how == "done and not told"):
                await work(*given, **named)
            raise StoreUnavailable("away")

        return call

    for verb in VERBS:
        monkeypatch.setattr(store, verb, faulty(verb))
    for n in range(MOST):
        at = -1
        person = Person(env)
        await person.connect()
        login = await lost(person) if journey == "coming back" else None
        path, code = await person.callback()
        calls, at = 0, n
        response = await person.go(path if login is None else path.replace(code, login))
        through, at = calls <= n, -1
        assert response.status_code in (302, 503), n
        await env.settled()
        if login is None:
            assert await banks(person) >= 1, (n, "the previous bank must be reachable without signing in again")
        env.bank.spent_codes.discard(login or code)
        if "location" not in response.headers or "error" in response.headers["location"]:
            assert "error" not in await back(person, login or code), n
            assert await banks(person) == 2, n
        elif login is None:
            assert await banks(person) == 2, n
        else:
            assert await banks(person) >= 1, n
        if through:
            assert await banks(person) == 2
            break
    else:
        pytest.fail("the callback never ran without a failing store call")


@pytest.mark.parametrize("env", ["memory"], indirect=True)
@pytest.mark.parametrize("step", ["renew", "exchange", "connect", "end", "put", "store"])
async def test_unexpected_exception_in_a_callback_keeps_the_session(
    env: InProcessEnv, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    runtime = env.gateway.runtime
    owners: dict[str, object] = {
        "renew": runtime.sessions, "exchange": env.bank, "connect": runtime.grants, "end": runtime.sessions,
        "put": runtime.sessions._store.store, "store": runtime.callback._recovery,
    }  # fmt: skip
    person = Person(env)
    await person.connect()
    path, _ = await person.callback()

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(owners[step], step, fail)
        going = asyncio.ensure_future(person.go(path))
        async with asyncio.timeout(10):
            # If renewal cannot end the old session it restores it, which needs further store calls.
            while not going.done() and not runtime.sessions._restoring:
                await asyncio.sleep(0)
    response = await going
    assert response.status_code == 302
    assert ("error=internal" in response.headers["location"]) is (step != "store")
    assert await banks(person) == (2 if step == "store" else 1)


@pytest.mark.parametrize("env", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("policy", "step"), [("ask", "for_owner"), ("replace", "for_owner"), ("replace", "disconnect")]
)
async def test_unexpected_exception_after_the_grant_is_stored_keeps_session_and_logins(
    env: InProcessEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, policy: str, step: str
) -> None:
    runtime = env.gateway.runtime
    connectors = dict(runtime.config.connectors)
    connectors["mikomo"] = replace(connectors["mikomo"], other_login=OtherLogin(policy))
    monkeypatch.setattr(runtime.callback, "_config", replace(runtime.config, connectors=connectors))
    person = Person(env)
    await person.connect()
    path, _ = await person.callback()

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(runtime.grants, step, fail)
        response = await person.go(path)
    assert (response.status_code, "error" in response.headers["location"]) == (302, False)
    assert await banks(person) == 2
    assert "RuntimeError: a bug" in caplog.text


async def behind(late: int, person: Person, path: str) -> httpx.Response:
    await turns(late)
    return await person.go(path)


async def test_concurrent_callbacks_with_one_session_id_let_only_one_continue_as_its_owner(env: InProcessEnv) -> None:
    """Race a session fixation: the attacker who planted the session ID returns from the bank together with the victim."""
    planter, victim = Person(env), Person(env)
    for at in range(30):
        await planter.connect()
        await victim.go("/akoya/connect/mikomo")
        for name, value in planter.http.cookies.items():
            if not name.endswith("-browser"):
                victim.http.cookies.set(name, value, domain="app.example.com", path="/")
        (first, code), (second, other) = await planter.callback(), await victim.callback()

        responses = await asyncio.gather(planter.go(first), behind(at, victim, second))
        landed = ["error" not in response.headers["location"] for response in responses]
        assert sum(landed) == 1, at
        assert (code in env.bank.spent_codes, other in env.bank.spent_codes) == tuple(landed), at
        assert [await banks(person) for person in (planter, victim)].count(0) == 1, at
        planter, victim = Person(env), Person(env)
