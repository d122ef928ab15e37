"""Sessions: which owner a browser has, how long a session lasts, and what does not change when the store fails."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from akoya_gateway.config.model import Cookie, Seconds
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.sessions import Session, SessionStore
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING, FlakyStore

COOKIE = Cookie("__Host-akoya", secure=True, idle=Seconds(3600.0), lifetime=Seconds(86400.0))


class SessionsEnv:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.store = FlakyStore(MemoryStore(lambda: self.now))
        self.sessions = self.replica()

    def replica(self) -> SessionStore:
        return SessionStore(EncryptedStore(self.store, RING), COOKIE, clock=lambda: self.now)  # type: ignore[arg-type]


@pytest.fixture
def env() -> SessionsEnv:
    return SessionsEnv()


async def test_session_is_known_by_its_cookie_alone(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    assert session.owner.startswith("own_")
    assert env.sessions.get_cached(value) == session
    assert await env.replica().resolve(value) == session
    assert await env.sessions.resolve("w" * 43) is None
    other, other_value = await env.sessions.start()
    assert other.owner != session.owner
    assert other_value != value


async def test_cached_entry_expires_when_its_session_ends(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    kept = env.sessions.cached_entry(value)
    assert kept is not None
    assert kept.valid_until > env.now
    await env.sessions.end(session)
    assert kept.valid_until < env.now


async def test_cached_entry_expires_when_it_is_reloaded_or_its_session_renewed(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    first = env.sessions.cached_entry(value)
    await env.sessions.resolve(value)
    second = env.sessions.cached_entry(value)
    assert first is not None
    assert second is not None
    assert first.valid_until < env.now < second.valid_until
    await env.sessions.renew(session)
    assert second.valid_until < env.now


async def test_leaked_store_gives_no_cookies(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    (record,) = env.store.writes
    assert value not in f"{record} {record.body!r} {session!r}"
    assert session.csrf.reveal() not in repr(session)
    assert value not in session.id
    assert hashlib.sha256(value.encode()).hexdigest() != session.id
    assert await env.sessions.resolve(session.id) is None


@pytest.mark.parametrize("junk", ["", "x", "../../etc", "w" * 44, "ü" * 43, "w" * 42 + "=", "w" * 1_000_000])
async def test_junk_does_not_reach_the_store(env: SessionsEnv, junk: str) -> None:
    env.store.down = True
    assert await env.sessions.resolve(junk) is None
    assert env.sessions.get_cached(junk) is None


async def test_idleness_ends_a_session_and_use_keeps_it(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    for _ in range(20):
        env.now += 3000
        assert await env.sessions.resolve(value) is not None
    env.now += 3600
    assert await env.sessions.resolve(value) is None


async def test_no_session_outlives_its_absolute_life(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    while env.now < session.created_at + 86400 - 1000:
        env.now += 1000
        assert await env.sessions.resolve(value) is not None
    env.now = session.created_at + 86400
    assert env.sessions.get_cached(value) is None
    assert await env.sessions.resolve(value) is None


async def test_sign_of_life_is_not_written_each_time(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    for _ in range(100):
        env.now += 1.1
        await env.sessions.resolve(value)
    assert len(env.store.writes) == 1
    env.now += 100
    touched = await env.sessions.resolve(value)
    assert touched is not None
    assert touched.seen_at == env.now
    assert len(env.store.writes) == 2


async def test_peek_is_believed_for_a_second(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    other = env.replica()
    assert other.get_cached(value) is None
    session = await other.resolve(value)
    assert session is not None
    await env.sessions.end(session)
    assert other.get_cached(value) is not None
    env.now += 1.0
    assert other.get_cached(value) is None
    assert await other.resolve(value) is None


async def test_ended_session_is_invalid_at_once_in_this_process(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    await env.sessions.end(session)
    assert env.sessions.get_cached(value) is None
    assert await env.sessions.resolve(value) is None


async def test_look_up_that_was_on_its_way_does_not_bring_an_ended_session_back(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    env.store.latency = 0.5
    looking = asyncio.ensure_future(env.sessions.resolve(value))
    await asyncio.sleep(0.75)  # The store has been read, and its response is on the way.
    env.store.latency = 0.0
    await env.sessions.end(session)
    assert await looking is None
    assert env.sessions.get_cached(value) is None


async def test_renewing_changes_the_id_and_nothing_else(env: SessionsEnv) -> None:
    session, value = await env.sessions.start("alice")
    env.now += 100
    renewed, new_value = await env.sessions.renew(session)
    assert new_value != value
    assert renewed.id != session.id
    assert (renewed.owner, renewed.created_at) == ("alice", session.created_at)
    assert renewed.csrf != session.csrf
    assert await env.sessions.resolve(value) is None
    assert env.sessions.get_cached(value) is None
    assert await env.sessions.resolve(new_value) == renewed


async def test_store_that_is_away_is_not_a_logout(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    env.now += 2
    env.store.down = True
    with pytest.raises(StoreUnavailable):
        await env.sessions.resolve(value)
    with pytest.raises(StoreUnavailable):
        await env.sessions.renew(session)
    with pytest.raises(StoreUnavailable):
        await env.sessions.end(session)
    env.store.down = False
    assert await env.sessions.resolve(value) == session


async def test_store_that_only_reads_still_knows_the_session(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    env.now += 1000
    env.store.failing = lambda verb, record: "before" if verb == "put" else None
    assert await env.sessions.resolve(value) is not None


async def test_renewal_that_fails_half_way_leaves_the_old_session(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    env.store.failing = lambda verb, record: "before" if verb == "delete" else None
    with pytest.raises(StoreUnavailable):
        await env.sessions.renew(session)
    env.store.failing = lambda verb, record: None
    assert await env.sessions.resolve(value) == session


async def test_renewal_whose_deletion_got_lost_restores_the_old_session_when_the_store_is_back(
    env: SessionsEnv,
) -> None:
    session, value = await env.sessions.start()
    calls: list[str] = []

    def fail(verb: str, record: object) -> str | None:
        if not calls and verb != "delete":
            return None
        calls.append(verb)
        return "after" if len(calls) == 1 else "before" if len(calls) < 5 else None

    env.store.failing = fail
    with pytest.raises(StoreUnavailable):
        await env.sessions.renew(session)
    restored = await env.sessions.resolve(value)
    assert restored is not None
    assert (restored.id, restored.owner, restored.csrf) == (session.id, session.owner, session.csrf)
    assert len(await env.sessions.for_owner(session.owner)) == 1, "the renewed session, never delivered, is gone"


async def test_renewal_that_fails_does_not_restore_what_another_caller_renewed(env: SessionsEnv) -> None:
    """Otherwise an attacker who planted the old id would share a session with the owner who then connects a bank."""
    session, value = await env.sessions.start()
    planter, victim = env.replica(), env.sessions
    renewed, cookie = await victim.renew(session)
    env.store.failing = lambda verb, record: "after" if verb == "delete" else None
    failing = asyncio.ensure_future(planter.renew(session))
    await asyncio.sleep(0.1)
    env.store.failing = lambda verb, record: None
    await asyncio.sleep(0.3)
    assert await env.replica().resolve(value) is None
    assert (await env.replica().resolve(cookie)) == renewed
    failing.cancel()
    ending: set[asyncio.Future[Any]] = {failing, *planter._restoring}
    await asyncio.wait(ending, timeout=0)
    for restoring in planter._restoring:
        restoring.cancel()


async def test_two_signs_of_life_at_once_do_no_harm(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    env.now += 1000
    env.store.latency = 0.001
    found = await asyncio.gather(*(env.replica().resolve(value) for _ in range(10)))
    assert all(session is not None for session in found)
    assert len(env.store.writes) == 2


async def test_csrf_secrets_are_compared_whole(env: SessionsEnv) -> None:
    session, _ = await env.sessions.start()
    assert session.csrf_matches(session.csrf.reveal())
    assert not session.csrf_matches("")
    assert not session.csrf_matches(session.csrf.reveal()[:-1])
    assert not session.csrf_matches("ü")


async def test_cache_is_bounded() -> None:
    now = 1_800_000_000.0
    sessions = SessionStore(EncryptedStore(MemoryStore(lambda: now), RING), COOKIE, clock=lambda: now, max_entries=10)
    values = [(await sessions.start())[1] for _ in range(50)]
    assert sum(sessions.get_cached(value) is not None for value in values) == 10


def test_end_is_the_sooner_of_the_two() -> None:
    from akoya_gateway.secret import Secret

    session = Session("id", "own", created_at=0.0, seen_at=86000.0, csrf=Secret("x"))
    assert session.ends_at(COOKIE) == 86400.0
    assert replace(session, seen_at=10.0).ends_at(COOKIE) == 3610.0


async def test_clock_that_is_set_back_does_not_keep_an_ended_session(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    await env.replica().end(session)
    env.now -= 3600
    assert env.sessions.get_cached(value) is None
    assert await env.sessions.resolve(value) is None


async def reads(env: SessionsEnv) -> None:
    """Let the background reads finish."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_busy_session_never_waits_for_the_store(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    for _ in range(50):
        env.now += 0.15
        assert env.sessions.get_cached(value) is not None
        await reads(env)


async def test_read_ahead_is_read_once(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    kept = env.sessions.cached_entry(value)
    assert kept is not None
    env.now += 0.7
    assert env.sessions.cached_entry(value) is kept
    await reads(env)
    assert env.sessions.cached_entry(value) is kept
    env.now += 0.15
    env.store.latency = 0.01
    assert env.sessions.cached_entry(value) is kept
    assert env.sessions.cached_entry(value) is kept
    assert len(env.sessions._reads) == 1
    await env.sessions._reads[value]
    assert env.sessions.cached_entry(value) is not kept


async def test_grant_ended_at_another_replica_ends_with_the_read_ahead(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    await env.replica().end(session)
    env.now += 0.85
    kept = env.sessions.cached_entry(value)
    assert kept is not None, "not read again yet"
    await reads(env)
    assert env.sessions.cached_entry(value) is None
    assert not kept.is_valid(env.now, 1.0)


async def test_store_that_is_away_is_not_noticed_before_the_second_is_over(env: SessionsEnv) -> None:
    _, value = await env.sessions.start()
    env.now += 0.85
    env.store.down = True
    assert env.sessions.get_cached(value) is not None
    await reads(env)
    assert env.sessions.get_cached(value) is not None
    env.now += 0.2
    assert env.sessions.get_cached(value) is None
    with pytest.raises(StoreUnavailable):
        await env.sessions.resolve(value)
    env.store.down = False
    assert await env.sessions.resolve(value) is not None


async def test_all_that_wait_for_one_session_share_a_read(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    calls: list[object] = []
    replica = env.replica()
    env.store.failing = lambda verb, record: calls.append(verb)
    found = await asyncio.gather(*[replica.resolve(value) for _ in range(100)])
    assert found == [session] * 100
    assert calls == ["get"]


async def test_cancelled_waiter_does_not_cancel_the_lookup_of_others(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    replica = env.replica()
    env.store.latency = 0.01
    first = asyncio.ensure_future(replica.resolve(value))
    second = asyncio.ensure_future(replica.resolve(value))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == session


async def test_waiter_does_not_get_a_session_that_ends_meanwhile(env: SessionsEnv) -> None:
    session, value = await env.sessions.start()
    env.now += 3000.0
    put, writing, written = env.store.put, asyncio.Event(), asyncio.Event()

    async def sign_of_life(record: Record) -> object:
        writing.set()
        await written.wait()
        return await put(record)  # type: ignore[operator]

    env.store.put = sign_of_life  # type: ignore[attr-defined]
    waiting = asyncio.ensure_future(env.sessions.resolve(value))
    await writing.wait()
    await env.sessions.end(session)
    written.set()
    assert await waiting is None
    assert env.sessions.get_cached(value) is None
