"""Tests that a cached decision is valid exactly as long as the session, grants and token it is based on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from akoya_gateway.admission.decision_cache import CachedDecision
from akoya_gateway.grants.cache import CachedGrants, GrantCache
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.session_store import CachedSession

NOW = 1000.0
TOKENS = TokenSet(Secret("bearer"), Secret("refresh"), NOW + 900, (), "sub")
KEY = GrantKey("owner", "double", "app", "mikomo", "sub")
GRANT = Grant(KEY, TOKENS, GrantState.LIVE, connected_at=1.0, refreshed_at=1.0)


def cached_decision(until: float = NOW + 60) -> tuple[CachedDecision, CachedSession, CachedGrants]:
    session = CachedSession(NOW + 1, NOW + 0.8, SimpleNamespace(owner="owner"))  # type: ignore[arg-type]
    held = CachedGrants(NOW + 1, NOW + 0.8, OwnerGrants("owner", (GRANT,)))
    anything: Any = None
    return CachedDecision(anything, session, held, held.grants, NOW, until), session, held


@pytest.mark.parametrize(
    ("at", "holds"), [(NOW, True), (NOW + 0.7, True), (NOW + 0.8, False), (NOW - 0.1, False), (0.0, False)]
)
def test_cached_decision_is_valid_until_its_grants_must_be_read_again(at: float, holds: bool) -> None:
    made, _, _ = cached_decision()
    assert made.is_valid(at) is holds


def test_cached_decision_ends_when_the_token_is_due() -> None:
    made, _, _ = cached_decision(until=NOW + 0.5)
    assert made.is_valid(NOW + 0.4)
    assert not made.is_valid(NOW + 0.5)


def test_cached_decision_ends_with_the_session() -> None:
    made, session, _ = cached_decision()
    session.expire()
    assert not made.is_valid(NOW)


def test_cached_decision_ends_when_the_grants_change() -> None:
    made, _, held = cached_decision()
    held.grants = OwnerGrants("owner", (GRANT,))
    assert not made.is_valid(NOW)


class Book:
    """A grant repository in which every owner has one grant."""

    async def for_owner(self, owner: str) -> OwnerGrants:
        return OwnerGrants(owner, (replace(GRANT, key=replace(KEY, owner=owner)),))


async def test_replaced_and_evicted_entries_expire_at_once() -> None:
    """Without this, an invalidation would reach the new entry only, and holders of the old entry would miss it."""
    cache = GrantCache(Book(), lambda: NOW, max_entries=2)  # type: ignore[arg-type]
    await cache.for_owner("a")
    first = cache.cached_entry("a")
    assert first is not None
    assert first.valid_until > NOW
    await cache.load("a")
    assert first.valid_until < NOW
    second = cache.cached_entry("a")
    await cache.for_owner("b")
    await cache.for_owner("c")
    assert cache.cached_entry("a") is None
    assert second is not None
    assert second.valid_until < NOW


async def test_changed_grant_is_seen_by_holders_of_the_cached_entry() -> None:
    cache = GrantCache(Book(), lambda: NOW)  # type: ignore[arg-type]
    await cache.for_owner("owner")
    known = cache.cached_entry("owner")
    assert known is not None
    before = known.grants
    cache.put(replace(GRANT, state=GrantState.REVOKED, version=9))
    assert known.grants is not before
    assert known.grants.grants == ()


async def test_grants_in_use_are_read_again_before_they_are_too_old() -> None:
    now = NOW
    cache = GrantCache(Book(), lambda: now)  # type: ignore[arg-type]
    await cache.for_owner("owner")
    for _ in range(50):
        now += 0.15
        assert cache.get_cached("owner") is not None
        for _ in range(5):
            await asyncio.sleep(0)


async def test_cached_decision_is_used_while_its_grants_are_read_again() -> None:
    made, session, held = cached_decision()
    assert not made.is_valid(NOW + 0.9)
    assert session.needs_refresh(NOW + 0.9)
    assert held.needs_refresh(NOW + 0.9)
    assert made.is_valid(NOW + 0.9)
    assert not session.needs_refresh(NOW + 0.95)
    assert not made.is_valid(NOW + 1.0)
