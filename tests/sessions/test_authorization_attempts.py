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


class Desk:
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
def desk() -> Desk:
    return Desk()


async def test_an_attempt_comes_back_as_it_was_begun(desk: Desk) -> None:
    state = await desk.attempts.begin(
        "mikomo", desk.browser, "/accounts?x=1", owner="own_1", code_verifier="verifier", nonce="nonce"
    )
    assert len(state) == 43
    taken = await desk.attempts.consume(state, desk.browser)
    assert taken == AuthorizationAttempt(
        "mikomo", "/accounts?x=1", desk.now, "own_1", Secret("verifier"), Secret("nonce")
    )
    assert "verifier" not in repr(taken).replace("code_verifier", "")


async def test_a_replayed_state_is_refused(desk: Desk) -> None:
    state = await desk.begin()
    assert isinstance(await desk.attempts.consume(state, desk.browser), AuthorizationAttempt)
    assert await desk.attempts.consume(state, desk.browser) == AttemptUnknown()


async def test_of_many_callbacks_one_gets_it(desk: Desk) -> None:
    state = await desk.begin()
    desk.store.latency = 0.001
    taken = await asyncio.gather(*(desk.attempts.consume(state, desk.browser) for _ in range(50)))
    assert sum(isinstance(each, AuthorizationAttempt) for each in taken) == 1


@pytest.mark.parametrize("browser", [None, "", "x", "w" * 43])
async def test_another_browser_gets_nothing_and_uses_it_up(desk: Desk, browser: str | None) -> None:
    state = await desk.begin()
    assert await desk.attempts.consume(state, browser) == AttemptOfOtherBrowser()
    assert await desk.attempts.consume(state, desk.browser) == AttemptUnknown()


async def test_a_late_callback_is_refused(desk: Desk) -> None:
    state = await desk.begin()
    desk.now += 899
    other = await desk.begin()
    desk.now += 1
    assert await desk.attempts.consume(state, desk.browser) == AttemptUnknown()
    assert isinstance(await desk.attempts.consume(other, desk.browser), AuthorizationAttempt)


async def test_tabs_do_not_disturb_each_other(desk: Desk) -> None:
    states = [await desk.begin(return_to=f"/tab/{n}") for n in range(8)]
    for n in (3, 0, 7):
        taken = await desk.attempts.consume(states[n], desk.browser)
        assert isinstance(taken, AuthorizationAttempt)
        assert taken.return_to == f"/tab/{n}"


async def test_the_oldest_attempts_of_a_browser_make_room(desk: Desk) -> None:
    states = []
    for _ in range(11):
        states.append(await desk.begin())
        desk.now += 1
    stranger = await desk.begin(new_token())
    taken = [isinstance(await desk.attempts.consume(state, desk.browser), AuthorizationAttempt) for state in states]
    assert taken == [False] * 3 + [True] * 8
    assert await desk.attempts.consume(stranger, desk.browser) == AttemptOfOtherBrowser()


async def test_all_attempts_together_are_bounded() -> None:
    desk = Desk(replace(Limits(), attempts=20))
    for _ in range(20):
        await desk.begin(new_token())
    with pytest.raises(TooManyAttempts) as raised:
        await desk.begin(new_token())
    assert raised.value.status == 503
    assert raised.value.retry_after
    desk.now += 901
    assert await desk.begin(new_token())


@given(st.text(max_size=60))
def test_guessed_states_are_unknown(state: str) -> None:
    async def take() -> object:
        desk = Desk()
        await desk.begin()
        return await desk.attempts.consume(state, desk.browser)

    assert asyncio.run(take()) == AttemptUnknown()


async def test_the_store_gives_away_neither_state_nor_browser_nor_verifier(desk: Desk) -> None:
    state = await desk.attempts.begin("mikomo", desk.browser, "/", code_verifier="my-verifier")
    (record,) = desk.store.writes
    seen = f"{record} {record.body!r}"
    assert state not in seen
    assert desk.browser not in seen
    assert "my-verifier" not in seen


async def test_unavailable_store_is_reported(desk: Desk) -> None:
    state = await desk.begin()
    desk.store.down = True
    with pytest.raises(StoreUnavailable):
        await desk.attempts.consume(state, desk.browser)
    desk.store.down = False
    assert isinstance(await desk.attempts.consume(state, desk.browser), AuthorizationAttempt)


async def test_only_a_token_of_ours_binds_a_browser(desk: Desk) -> None:
    with pytest.raises(ValueError, match="token of ours"):
        await desk.attempts.begin("mikomo", "guessable", "/")
