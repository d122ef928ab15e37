"""Grants as records: they survive a round trip, and the record reveals nothing."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.events import ProviderResponded, Reconnected
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, Lease
from akoya_gateway.grants.repository import GrantRepository, group_of
from akoya_gateway.grants.serialization import UnreadableGrant, decode, encode
from akoya_gateway.oauth.outcomes import TokenSet, TokensIssued
from akoya_gateway.secret import Secret
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.memory import MemoryStore
from tests.support.grants import RING

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
moments = st.floats(0, 4e9)
secrets = st.builds(Secret, text)
token_sets = st.builds(
    TokenSet,
    bearer=secrets,
    refresh_token=st.none() | secrets,
    expires_at=moments,
    scope=st.lists(text, max_size=3).map(tuple),
    sub=text,
    consent_id=st.none() | text,
)
grants = st.builds(
    Grant,
    key=st.builds(GrantKey, text, text, text, text, text),
    tokens=token_sets,
    state=st.sampled_from(GrantState),
    connected_at=moments,
    refreshed_at=moments,
    version=st.integers(1, 2**40),
    lease=st.none() | st.builds(Lease, text, moments, moments, st.booleans()),
    reason=st.none() | text,
    retry_at=moments,
    failures=st.integers(0, 10**6),
    unknowns=st.integers(0, 10),
)


@given(grants)
def test_grant_comes_back_as_it_was(grant: Grant) -> None:
    assert decode(encode(grant), grant.version) == grant


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | text, st.lists).map(json.dumps).map(str.encode)
)
def test_record_that_is_not_a_grant_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(UnreadableGrant):
        decode(body, 1)


@given(grants, st.sampled_from(["key", "tokens", "state", "lease", "failures", "format"]), st.none() | st.integers())
def test_damaged_grant_shows_nothing_of_itself(grant: Grant, name: str, damage: object) -> None:
    document = json.loads(encode(grant))
    document[name] = damage
    try:
        decode(json.dumps(document).encode(), 1)
    except UnreadableGrant as error:
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__
        assert len(str(error)) < 80


def test_grant_of_a_newer_release_is_left_alone() -> None:
    with pytest.raises(UnreadableGrant, match="newer release"):
        decode(b'{"format": 2}', 1)


def test_no_token_prints() -> None:
    tokens = TokenSet(Secret("hush-bearer"), Secret("hush-refresh"), 1.0, (), "sub")
    grant = Grant(GrantKey("o", "e", "c", "m", "sub"), tokens, GrantState.LIVE, 0.0, 0.0)
    responded = ProviderResponded("me", Secret("hush-used"), TokensIssued(tokens))
    assert "hush" not in f"{grant!r} {responded!r} {Reconnected(tokens)!r} {tokens!r}"
    with pytest.raises(TypeError):
        pickle.dumps(grant)


def test_store_sees_no_owner() -> None:
    assert "alice" not in group_of("alice@example.com")
    assert group_of("alice") != group_of("bob")


async def test_only_one_of_two_writers_wins() -> None:
    repository = GrantRepository(EncryptedStore(MemoryStore(), RING))
    tokens = TokenSet(Secret("b"), Secret("r"), 1.0, (), "sub")
    grant = Grant(GrantKey("o", "e", "c", "m", "sub"), tokens, GrantState.LIVE, 0.0, 0.0)
    first = await repository.write(grant, after=0)
    assert first is not None
    assert first.version == 1
    assert await repository.write(grant, after=0) is None
    second = await repository.write(grant, after=1)
    assert second is not None
    assert await repository.write(grant, after=1) is None
    assert [each.version async for each in repository.scan()] == [2]


async def test_record_moved_to_another_owner_does_not_open() -> None:
    store = MemoryStore()
    repository = GrantRepository(EncryptedStore(store, RING))
    tokens = TokenSet(Secret("b"), Secret("r"), 1.0, (), "sub")
    grant = Grant(GrantKey("own_1", "e", "c", "m", "sub"), tokens, GrantState.LIVE, 0.0, 0.0)
    await repository.write(grant, after=0)
    stolen = await store.get("grant", grant.id)
    assert stolen is not None
    await store.put(Record("grant", "another", stolen.body, 1, group_of("own_2")))
    with pytest.raises(OperatorError):
        await repository.for_owner("own_2")
