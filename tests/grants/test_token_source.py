"""Refreshes at another token endpoint, or as another client, than the tokens came from: a refusal ends no grant there."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from akoya_gateway.config.model import Client
from akoya_gateway.grants import Grant, GrantManager, GrantState
from akoya_gateway.grants.errors import UntrustedResponses
from akoya_gateway.grants.events import ProviderResponded, Reason, RefreshRequested
from akoya_gateway.grants.serialization import decode, encode
from akoya_gateway.grants.state_machine import transition
from akoya_gateway.grants.trust import TrustTracker
from akoya_gateway.oauth.outcomes import (
    DistrustReason,
    OutcomeUnknown,
    Refused,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.grants.events import KEY, NOW, tokens
from tests.support.grants import GrantEnv, Provider, client, environment, status
from tests.support.virtual_time import clock, in_virtual_time

WRONG_HOST = replace(client, environment=replace(environment, token_endpoint="http://127.0.0.2/token"))
OTHER_CLIENT = replace(client, client_id="other")


class Sourced(Provider):
    """Marks the tokens with their source, as `provider.Provider` does."""

    def consent(self, sub: str = "sub_1") -> TokenSet:
        return replace(super().consent(sub), source=self.client.token_source)

    is_mock = False
    """Whether it returns the tokens of one `sub` for every request."""

    def act(self, token: str) -> TokenOutcome:
        if self.is_mock:
            return Untrusted("sub differs", Secret("refresh of the mock"), DistrustReason.SUBJECT)
        outcome = super().act(token)
        if not isinstance(outcome, TokensIssued):
            return Refused("invalid_grant")
        return TokensIssued(replace(outcome.tokens, source=self.client.token_source))


class Moved(GrantEnv):
    """Grants of a provider, and managers that are configured otherwise."""

    def __init__(self) -> None:
        super().__init__(managers=0)
        self.provider = Sourced(clock)
        self.managers = [self.new_manager("as connected")]

    def configured(self, changed: Client, at: Provider | None = None, *, is_mock: bool = False) -> GrantManager:
        """Return the manager of a process whose client is `changed`, at a server that accepts the tokens of `at`."""
        provider = Sourced(clock)
        provider.is_mock = is_mock
        if at is not None:
            provider.families, provider._numbers = at.families, at._numbers
        provider.client = changed
        return self.new_manager(f"holder {clock()}", provider)

    async def statuses(self, grants: list[Grant], manager: GrantManager, seconds: float) -> set[int]:
        seen = set()
        for _ in range(int(seconds / 10)):
            for grant in grants:
                seen.add(await status(await self.stored(grant), manager))
            await asyncio.sleep(10)
        return seen


@pytest.mark.parametrize(("changed", "is_mock"), [(WRONG_HOST, False), (WRONG_HOST, True), (OTHER_CLIENT, False)])
@pytest.mark.parametrize("count", [1, 4])
def test_wrong_server_or_client_ends_no_grant_and_is_reported(changed: Client, is_mock: bool, count: int) -> None:
    @in_virtual_time
    async def main() -> None:
        env = Moved()
        grants = [await env.connect(sub=f"sub_{n}", owner=f"own_{n}") for n in range(count)]
        await asyncio.sleep(950)
        wrong = env.configured(changed, is_mock=is_mock)
        assert await env.statuses(grants, wrong, 3600) == {503}
        assert {(await env.stored(grant)).state for grant in grants} == {GrantState.LIVE}
        assert await wrong.revocation_queue.count() == 0
        (note,) = wrong.notes
        assert "token_endpoint, client_id" in note
        assert ("1 grant of" in note) == (count == 1)
        with pytest.raises(UntrustedResponses) as raised:
            await wrong.get_fresh(await env.stored(grants[0]))
        assert raised.value.reconnect == "mikomo", "the user need not wait for the operator"

        right = env.configured(client, env.provider)
        assert await env.statuses(grants, right, 10) == {200}

    main()


@in_virtual_time
async def test_dead_grant_ends_at_once_where_its_tokens_came_from() -> None:
    env = Moved()
    grant = await env.connect()
    env.provider.families[0].ended = True
    await asyncio.sleep(950)
    assert await status(grant, env.manager) == 401
    stored = await env.stored(grant)
    assert (stored.state, stored.reason) == (GrantState.NEEDS_RECONNECT, Reason.DEAD_TOKEN)


@in_virtual_time
async def test_dead_grant_ends_after_the_provider_has_moved() -> None:
    """A refresh of another grant shows that the new token endpoint accepts the tokens of the old one."""
    env = Moved()
    dead = await env.connect(sub="sub_1", owner="own_1")
    env.provider.families[0].ended = True
    living = await env.connect(sub="sub_2", owner="own_2")
    await asyncio.sleep(950)
    moved = env.configured(WRONG_HOST, env.provider)
    assert await status(await env.stored(dead), moved) == 503
    assert await status(await env.stored(living), moved) == 200
    assert await env.statuses([dead], moved, 60) >= {401}
    assert (await env.stored(living)).tokens.source == WRONG_HOST.token_source
    assert (await env.stored(dead)).reason == Reason.DEAD_TOKEN
    await asyncio.sleep(950)
    env.provider.families[1].ended = True
    assert await status(await env.stored(living), env.configured(WRONG_HOST, env.provider)) == 401


@pytest.mark.parametrize(("doubtful", "source"), [(False, "new"), (True, "old")])
def test_rotated_token_of_an_untrusted_response_has_its_own_source(doubtful: bool, source: str) -> None:
    grant = Grant(KEY, replace(tokens(), source="old"), GrantState.LIVE, NOW - 100, NOW - 100)
    leased = transition(grant, RefreshRequested("me", 10.0), NOW)
    outcome = Untrusted("no id_token", Secret("refresh-2"), doubtful=doubtful)
    after = transition(leased, ProviderResponded("me", Secret("refresh-1"), outcome, source="new"), NOW)
    assert decode(encode(after), 1).tokens.source == source


@pytest.mark.parametrize("restarts", [False, True])
def test_refused_grants_of_an_earlier_client_do_not_hold_back_the_others(restarts: bool) -> None:
    """The client_id was changed permanently: the tokens of users who have not reconnected yet are refused for weeks."""

    @in_virtual_time
    async def main() -> None:
        env = Moved()
        earlier = [await env.connect(sub=f"sub_{n}", owner=f"own_{n}") for n in range(6)]
        provider = Sourced(clock)
        provider.client, provider._numbers = OTHER_CLIENT, itertools.count(1000)
        manager = env.new_manager("changed", provider)
        later = await manager.connect("own_later", OTHER_CLIENT, "mikomo", provider.consent("sub_later"))
        for n in range(270):
            if restarts and n % 60 == 0:
                manager = env.new_manager(f"changed {n}", provider)
            for grant in earlier:
                await status(await env.stored(grant), manager)
            assert await status(await env.stored(later), manager) == 200
            await asyncio.sleep(20)
        assert {(await env.stored(grant)).state for grant in earlier} == {GrantState.LIVE}
        assert any("6 grants of mikomo" in note for note in manager.notes)

    main()


def test_refusals_from_another_source_are_reported_once() -> None:
    tracker = TrustTracker(lambda: NOW, lambda: 0.5)
    refused = Untrusted("invalid_grant", reason=DistrustReason.SOURCE)
    faults = [
        tracker.record_outcome("double", "mikomo", grant, refused, in_a_row)
        for in_a_row in (1, 2, 3, 4)
        for grant in ("a", "b")
    ]
    assert [fault is not None for fault in faults] == [False, False, False, False, True, False, False, False]
    assert tracker.wait("double", "mikomo") == 0.0
    assert [fault.grants for fault in tracker.faults] == [2]


def test_doubtful_token_refused_by_another_source_is_replaced_by_the_previous_one() -> None:
    """The body of an error contained a `refresh_token`, after the provider had moved. It must not replace the real one."""
    grant = Grant(KEY, replace(tokens(), source="old"), GrantState.LIVE, NOW - 100, NOW - 100)
    responses = [
        ("refresh-1", Untrusted("no id_token", Secret("of an error"), doubtful=True)),
        ("of an error", Untrusted("invalid_grant", reason=DistrustReason.SOURCE)),
        ("refresh-1", Untrusted("invalid_grant", reason=DistrustReason.SOURCE)),
    ]
    for used, outcome in responses:
        assert grant.tokens.refresh_token == Secret(used)
        leased = transition(grant, RefreshRequested("me", 10.0), NOW)
        grant = transition(leased, ProviderResponded("me", Secret(used), outcome, source="new"), NOW)
    assert (grant.tokens.refresh_token, grant.fallback, grant.state) == (Secret("refresh-1"), None, GrantState.LIVE)


@in_virtual_time
async def test_late_response_of_a_wrong_server_with_another_sub_ends_no_grant() -> None:
    env = Moved()
    grant = await env.connect()
    await asyncio.sleep(950)
    late = asyncio.get_running_loop().create_future()
    provider = Sourced(clock)
    provider.client, provider.faults = WRONG_HOST, [OutcomeUnknown("timeout", late=late)]
    wrong = env.new_manager("wrong", provider)
    await wrong._refresher.flight(grant)
    late.set_result(Untrusted("sub differs", Secret("refresh of the mock"), DistrustReason.SUBJECT))
    await asyncio.sleep(1)
    stored = await env.stored(grant)
    assert (stored.state, stored.tokens.refresh_token) == (GrantState.UNCERTAIN, grant.tokens.refresh_token)
    assert await wrong.revocation_queue.count() == 0
