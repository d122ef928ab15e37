"""Authorization attempts: each is for one browser, can be used once, and expires."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.config.model import Limits
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.secret import Secret
from akoya_gateway.sessions import (
    AttemptOfOtherBrowser,
    AttemptUnknown,
    AuthorizationAttempt,
    AuthorizationAttempts,
    TooManyAttempts,
    new_token,
)
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING, FlakyStore


class AttemptsEnv:
    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 1_800_000_000.0
        self.store = FlakyStore(MemoryStore(lambda: self.now))
        self.attempts = AuthorizationAttempts(
            EncryptedStore(self.store, RING),  # type: ignore[arg-type]
            limits or Limits(),
            clock=lambda: self.now,
        )
        self.browser = new_token()

    async def begin(self, browser: str | None = None, return_to: str = "/accounts") -> str:
        return await self.attempts.begin("mikomo", browser or self.browser, return_to)


@pytest.fixture
def env() -> AttemptsEnv:
    return AttemptsEnv()


async def test_attempt_comes_back_as_it_was_begun(env: AttemptsEnv) -> None:
    state = await env.attempts.begin(
        "mikomo", env.browser, "/accounts?x=1", owner="own_1", code_verifier="verifier", nonce="nonce"
    )
    assert len(state) == 43
    taken = await env.attempts.consume(state, env.browser)
    assert taken == AuthorizationAttempt(
        "mikomo", "/accounts?x=1", env.now, "own_1", Secret("verifier"), Secret("nonce")
    )
    assert "verifier" not in repr(taken).replace("code_verifier", "")


async def test_replayed_state_is_refused(env: AttemptsEnv) -> None:
    state = await env.begin()
    assert isinstance(await env.attempts.consume(state, env.browser), AuthorizationAttempt)
    assert await env.attempts.consume(state, env.browser) == AttemptUnknown()


async def test_of_many_callbacks_one_gets_it(env: AttemptsEnv) -> None:
    state = await env.begin()
    env.store.latency = 0.001
    taken = await asyncio.gather(*(env.attempts.consume(state, env.browser) for _ in range(50)))
    assert sum(isinstance(each, AuthorizationAttempt) for each in taken) == 1


@pytest.mark.parametrize("browser", [None, "", "x", "w" * 43])
async def test_another_browser_gets_nothing_and_uses_it_up(env: AttemptsEnv, browser: str | None) -> None:
    state = await env.begin()
    assert await env.attempts.consume(state, browser) == AttemptOfOtherBrowser()
    assert await env.attempts.consume(state, env.browser) == AttemptUnknown()


async def test_late_callback_is_refused(env: AttemptsEnv) -> None:
    state = await env.begin()
    env.now += 899
    other = await env.begin()
    env.now += 1
    assert await env.attempts.consume(state, env.browser) == AttemptUnknown()
    assert isinstance(await env.attempts.consume(other, env.browser), AuthorizationAttempt)


async def test_tabs_do_not_disturb_each_other(env: AttemptsEnv) -> None:
    states = [await env.begin(return_to=f"/tab/{n}") for n in range(8)]
    for n in (3, 0, 7):
        taken = await env.attempts.consume(states[n], env.browser)
        assert isinstance(taken, AuthorizationAttempt)
        assert taken.return_to == f"/tab/{n}"


async def test_oldest_attempts_of_a_browser_make_room(env: AttemptsEnv) -> None:
    states = []
    for _ in range(11):
        states.append(await env.begin())
        env.now += 1
    other_attempt = await env.begin(new_token())
    taken = [isinstance(await env.attempts.consume(state, env.browser), AuthorizationAttempt) for state in states]
    assert taken == [False] * 3 + [True] * 8
    assert await env.attempts.consume(other_attempt, env.browser) == AttemptOfOtherBrowser()


async def test_all_attempts_together_are_bounded() -> None:
    env = AttemptsEnv(replace(Limits(), attempts=20))
    for _ in range(20):
        await env.begin(new_token())
    with pytest.raises(TooManyAttempts) as raised:
        await env.begin(new_token())
    assert raised.value.status == 503
    assert raised.value.retry_after
    env.now += 901
    assert await env.begin(new_token())


@given(st.text(max_size=60))
def test_guessed_states_are_unknown(state: str) -> None:
    async def take() -> object:
        env = AttemptsEnv()
        await env.begin()
        return await env.attempts.consume(state, env.browser)

    assert asyncio.run(take()) == AttemptUnknown()


async def test_store_gives_away_neither_state_nor_browser_nor_verifier(env: AttemptsEnv) -> None:
    state = await env.attempts.begin("mikomo", env.browser, "/", code_verifier="my-verifier")
    (record,) = env.store.writes
    seen = f"{record} {record.body!r}"
    assert state not in seen
    assert env.browser not in seen
    assert "my-verifier" not in seen


async def test_unavailable_store_is_reported(env: AttemptsEnv) -> None:
    state = await env.begin()
    env.store.down = True
    with pytest.raises(StoreUnavailable):
        await env.attempts.consume(state, env.browser)
    env.store.down = False
    assert isinstance(await env.attempts.consume(state, env.browser), AuthorizationAttempt)


async def test_only_a_token_of_the_gateway_binds_a_browser(env: AttemptsEnv) -> None:
    with pytest.raises(ValueError, match="token of ours"):
        await env.attempts.begin("mikomo", "guessable", "/")
