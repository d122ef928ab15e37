"""Responses that fail validation: none ends a grant or is passed on, and service resumes soon after the fix."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.grants import Grant, GrantManager, GrantState, NeedsReconnect
from akoya_gateway.grants.errors import UntrustedResponses
from akoya_gateway.grants.events import Event, LeaseExpired, ProviderResponded, Reason, RefreshRequested
from akoya_gateway.grants.pauses import MAX_BACK_OFF
from akoya_gateway.grants.refresh_policy import offered_reconnect
from akoya_gateway.grants.serialization import decode, encode
from akoya_gateway.grants.state_machine import transition
from akoya_gateway.grants.trust import TrustTracker
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.grants.events import KEY, NOW, tokens
from tests.support.grants import GrantEnv, bearer, client
from tests.support.virtual_time import clock, in_virtual_time


def untrusted(number: int | None, because: DistrustReason = DistrustReason.ID_TOKEN) -> Untrusted:
    return Untrusted("`iss` is another", None if number is None else Secret(f"refresh-{number}"), because)


CAUSES = st.sampled_from([DistrustReason.ID_TOKEN, DistrustReason.KEYS])


@given(
    st.lists(
        st.tuples(st.sampled_from(["new", "none", "down", "refused client", "late"]), CAUSES, st.floats(0, 0.999)),
        max_size=40,
    ),
    st.floats(0, NOW),
)
def test_no_sequence_of_untrusted_responses_ends_a_grant(
    rounds: list[tuple[str, DistrustReason, float]], since: float
) -> None:
    grant, now, last = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100), NOW, 1
    for what, because, jitter in rounds:
        now = max(now, grant.retry_at)
        grant = transition(grant, RefreshRequested("me", 10.0), now)
        assert grant.state is GrantState.REFRESHING
        used = grant.tokens.refresh_token
        assert used is not None
        if what == "late":
            # The lease went to another holder, whose request was not acted upon: the response finds no lease.
            grant = transition(grant, ProviderResponded("me", used, ProviderDown("no connection")), now)
        if what in ("new", "late"):
            last += 1
        responses: dict[str, TokenOutcome] = {
            "new": untrusted(last, because), "late": untrusted(last, because), "none": untrusted(None, because),
            "down": ProviderDown("no connection"), "refused client": ClientRejected("invalid_client"),
        }  # fmt: skip
        grant = transition(grant, ProviderResponded("me", used, responses[what], jitter, since), now)
        assert grant.state is GrantState.LIVE
        assert grant.tokens.refresh_token == Secret(f"refresh-{last}"), "the successor is kept, whatever else is wrong"
        assert grant.tokens.bearer == Secret("bearer-1"), "a bearer that was not validated is never kept"
        assert 0 < grant.retry_at - now <= MAX_BACK_OFF
    grant = transition(grant, RefreshRequested("me", 10.0), now)
    grant = transition(grant, ProviderResponded("me", Secret(f"refresh-{last}"), TokensIssued(tokens(99))), now)
    assert (grant.state, grant.reason, grant.untrusted) == (GrantState.LIVE, None, 0)


@pytest.mark.parametrize("state", [GrantState.LIVE, GrantState.UNCERTAIN, GrantState.NEEDS_RECONNECT])
def test_refresh_token_of_a_late_untrusted_response_is_kept_in_every_state(state: GrantState) -> None:
    """Otherwise the grant would keep the token that this response has spent."""
    before = Grant(KEY, tokens(), state, NOW - 100, NOW - 100, unknowns=int(state is GrantState.UNCERTAIN))
    after = transition(before, ProviderResponded("me", Secret("refresh-1"), untrusted(2)), NOW)
    assert (after.state, after.tokens.refresh_token, after.unknowns) == (GrantState.LIVE, Secret("refresh-2"), 0)
    assert transition(before, ProviderResponded("me", Secret("refresh-1"), untrusted(None)), NOW) is before


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        ([untrusted(2, DistrustReason.SUBJECT)], Reason.ANOTHER_SUB),
        ([untrusted(2), untrusted(3, DistrustReason.SUBJECT)], Reason.ANOTHER_SUB),
        ([untrusted(None), Refused("invalid_grant")], Reason.DEAD_TOKEN),
    ],
)
def test_what_an_untrusted_response_is_not_about_still_ends_the_grant(
    responses: list[TokenOutcome], reason: Reason
) -> None:
    grant = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100)
    for response in responses:
        grant = transition(grant, RefreshRequested("me", 10.0), NOW)
        used = grant.tokens.refresh_token
        assert used is not None
        grant = transition(grant, ProviderResponded("me", used, response), NOW)
    assert (grant.state, grant.reason) == (GrantState.NEEDS_RECONNECT, reason)


DOUBTFUL = Untrusted("no id_token", Secret("is required"), doubtful=True)
NEW = TokensIssued(tokens(9))


@pytest.mark.parametrize(
    ("answers", "used", "state"),
    [
        ([DOUBTFUL, Refused("invalid_grant"), NEW], ["refresh-1", "is required", "refresh-1"], GrantState.LIVE),
        ([DOUBTFUL, Refused("invalid_grant"), Refused("invalid_grant")], ["refresh-1", "is required", "refresh-1"], GrantState.NEEDS_RECONNECT),
        ([DOUBTFUL, NEW], ["refresh-1", "is required"], GrantState.LIVE),
        ([DOUBTFUL, untrusted(5), Refused("invalid_grant")], ["refresh-1", "is required", "refresh-5"], GrantState.NEEDS_RECONNECT),
        ([DOUBTFUL, DOUBTFUL, Refused("invalid_request")], ["refresh-1", "is required", "is required"], GrantState.LIVE),
        ([DOUBTFUL, ProviderDown("503"), Refused("invalid_grant")], ["refresh-1", "is required", "is required"], GrantState.LIVE),
    ],
)  # fmt: skip
def test_token_that_came_without_a_bearer_is_used_before_the_one_that_was_sent(
    answers: list[TokenOutcome], used: list[str], state: GrantState
) -> None:
    """A server may explain under `refresh_token`, with status 200, what is wrong with the request."""
    grant, sent = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100), []
    for answer in answers:
        leased = decode(encode(transition(grant, RefreshRequested("me", 10.0), NOW)), 1)
        assert leased.tokens.refresh_token is not None
        sent.append(leased.tokens.refresh_token)
        grant = transition(leased, ProviderResponded("me", sent[-1], answer), NOW)
    assert sent == [Secret(text) for text in used]
    assert grant.state is state
    assert grant.fallback is None or grant.tokens.refresh_token == Secret("is required")


def test_pauses_grow_from_five_seconds_to_a_quarter_of_an_hour() -> None:
    grant, pauses = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100), []
    for number in range(2, 30):
        events: list[Event] = [
            RefreshRequested("me", 10.0), ProviderResponded("me", Secret(f"refresh-{number - 1}"), untrusted(number), 0.999999)
        ]  # fmt: skip
        for event in events:
            grant = transition(grant, event, NOW)
        pauses.append(grant.retry_at - NOW)
    assert pauses[0] == pytest.approx(5, abs=0.01)
    assert pauses[-1] == pytest.approx(900, abs=0.01)
    assert all(a < b or b == pytest.approx(900, abs=0.01) for a, b in pairwise(pauses))
    assert sum(pause < 60 for pause in pauses) >= 6, "a fault of a few minutes is over soon after it is corrected"


def test_lease_that_expires_in_between_is_a_doubt_as_ever() -> None:
    grant = Grant(KEY, tokens(), GrantState.LIVE, NOW - 100, NOW - 100)
    grant = transition(grant, RefreshRequested("me", 10.0), NOW)
    grant = transition(grant, ProviderResponded("me", Secret("refresh-1"), untrusted(2)), NOW)
    grant = transition(transition(grant, RefreshRequested("me", 10.0), NOW), LeaseExpired(), NOW + 11)
    assert grant.state is GrantState.UNCERTAIN


# --- the grant manager --------------------------------------------------------------------------------------------


class Untrustworthy(GrantEnv):
    """All refreshes succeed, but their id_tokens fail validation while `wrong` is set."""

    wrong = False

    def spoil(self) -> Untrustworthy:
        act = self.provider.act

        def acted(token: str) -> TokenOutcome:
            response = act(token)
            if not self.wrong or not isinstance(response, TokensIssued):
                return response
            self.unvalidated.append(response.tokens.bearer.reveal())
            return Untrusted("`iss` is another", response.tokens.refresh_token)

        self.unvalidated: list[str] = []
        self.provider.act = acted  # type: ignore[method-assign]
        return self

    async def status(self, grant: Grant, grants: GrantManager | None = None) -> int:
        """Return the status that the app's user gets."""
        grants = grants or self.manager
        grant = (await grants.repository.get(grant.id)) or grant
        try:
            passed = await grants.get_fresh(grant)
        except (UntrustedResponses, NeedsReconnect) as error:
            return error.status
        assert passed.tokens.expires_at > clock()
        assert bearer(passed) not in self.unvalidated
        return 200


@in_virtual_time
async def test_grants_recover_soon_after_a_fault_of_half_a_minute() -> None:
    """A clock that was wrong for 30 s once ended every consent whose token was due for refresh (report 02)."""
    env = Untrustworthy(life=100.0).spoil()
    grant = await env.connect()
    await asyncio.sleep(90)
    env.wrong = True
    statuses = []
    for _ in range(15):
        statuses.append(await env.status(grant))
        await asyncio.sleep(2)
    assert set(statuses[:5]) == {200}, "the old bearer, until it expires"
    assert set(statuses[6:]) == {503}
    env.wrong = False
    began = clock()
    while await env.status(grant) != 200:
        await asyncio.sleep(1)
    assert clock() - began <= 20
    assert (await env.stored(grant)).state is GrantState.LIVE


@in_virtual_time
async def test_hour_of_untrusted_responses_ends_no_grant_and_sends_few_requests() -> None:
    env = Untrustworthy(managers=2).spoil()
    grants = [await env.connect(sub=f"sub_{n}", owner=f"own_{n}") for n in range(10)]
    env.wrong = True
    await asyncio.sleep(950)
    began = clock()
    while clock() < began + 3600:
        for grant in grants:
            for grant_manager in env.managers:
                assert await env.status(grant, grant_manager) == 503
        await asyncio.sleep(10)
    requests = [at for at in env.provider.used_at if at >= began]
    assert len(requests) < 150, "ten users, two replicas, an hour"
    assert {(await env.stored(grant)).state for grant in grants} == {GrantState.LIVE}
    (note,) = env.manager.notes
    assert "mikomo" in note
    assert "issuer" in note

    env.wrong = False
    await asyncio.sleep(1800)
    statuses = [await env.status(grant) for grant in grants]
    assert statuses == [200] * 10
    await asyncio.sleep(300)
    assert env.manager.notes == ()


@in_virtual_time
async def test_reload_retries_every_grant_at_once_and_resets_the_count() -> None:
    """An `issuer` without its trailing slash, corrected a minute later, once cost 10 of 10 grants."""
    env = Untrustworthy().spoil()
    grants = [await env.connect(sub=f"sub_{n}", owner=f"own_{n}") for n in range(10)]
    env.wrong = True
    await asyncio.sleep(950)
    for _ in range(1800):
        await env.status(grants[0])
        await asyncio.sleep(1)
    before = await env.stored(grants[0])
    assert before.retry_at - clock() > 60
    still_wrong = env.new_manager("reloaded, to no avail")
    assert await env.status(grants[0], still_wrong) == 503
    again = await env.stored(grants[0])
    assert again.untrusted == 1
    assert 0 < again.retry_at - clock() <= 5
    env.wrong = False
    await asyncio.sleep(1)
    reloaded = env.new_manager("reloaded, and right")
    assert [await env.status(grant, reloaded) for grant in grants] == [200] * 10


@in_virtual_time
async def test_refresh_that_was_under_way_at_the_reload_does_not_hold_its_successor_back() -> None:
    env = Untrustworthy(delay=4.0).spoil()
    grant = await env.connect()
    env.wrong = True
    await asyncio.sleep(950)
    for _ in range(600):
        await env.status(grant)
        await asyncio.sleep(1)
    while (stored := await env.stored(grant)).state is not GrantState.REFRESHING:
        env.manager._refresher.flight(stored)
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    reloaded = env.new_manager("reloaded while the old one waits for a response")
    while (stored := await env.stored(grant)).state is GrantState.REFRESHING:
        await asyncio.sleep(1)
    assert stored.retry_at - clock() > 30
    env.wrong = False
    assert await env.status(grant, reloaded) == 200


@in_virtual_time
async def test_replicas_share_the_pauses_of_a_grant() -> None:
    env = Untrustworthy(managers=5).spoil()
    grant = await env.connect()
    env.wrong = True
    await asyncio.sleep(950)
    began = clock()
    while clock() < began + 120:
        for grants in env.managers:
            assert await env.status(grant, grants) == 503
        await asyncio.sleep(1)
    requests = [at for at in env.provider.used_at if at >= began]
    assert 4 <= len(requests) <= 10


@in_virtual_time
async def test_user_is_offered_to_reconnect_from_the_third_response_on() -> None:
    env = Untrustworthy().spoil()
    grant = await env.connect()
    env.wrong = True
    await asyncio.sleep(950)
    offers = []
    for number in range(1, 5):
        while (stored := await env.stored(grant)).untrusted < number:
            assert await env.status(grant) == 503
            await asyncio.sleep(1)
        with pytest.raises(UntrustedResponses) as raised:
            await env.manager.get_fresh(stored)
        assert raised.value.retry_after is not None
        assert raised.value.retry_after >= 1
        offers.append(raised.value.reconnect)
    assert offers == [None, None, "mikomo", "mikomo"]
    env.wrong = False
    await env.manager.connect(grant.key.owner, client, "mikomo", env.provider.consent())
    assert not offered_reconnect(await env.stored(grant), 0.0)


@in_virtual_time
async def test_users_of_a_connector_are_offered_to_reconnect_though_one_refresh_is_let_through_for_all() -> None:
    env = Untrustworthy().spoil()
    grants = [await env.connect(sub=f"sub_{n}", owner=f"own_{n}") for n in range(4)]
    healthy = await env.connect(sub="sub_9", owner="own_9", connector="other")
    env.wrong = True
    await asyncio.sleep(950)
    for grant in grants:
        assert await env.status(grant) == 503
    last = await env.stored(grants[-1])
    assert last.untrusted == 0, "held back because of the other grants' responses"
    with pytest.raises(UntrustedResponses) as raised:
        await env.manager.get_fresh(last)
    assert raised.value.reconnect == "mikomo"
    assert env.manager.offers_reconnect(await env.stored(grants[0]))
    assert not env.manager.offers_reconnect(await env.stored(healthy))


@in_virtual_time
async def test_connectors_are_distinguished_from_environments() -> None:
    trust = TrustTracker(clock, lambda: 0.5)
    bad, good = untrusted(2), TokensIssued(tokens())
    assert trust.record_outcome("e", "one", "g1", bad) is None
    assert trust.record_outcome("e", "one", "g1", bad) is None, "one grant is held back by its own record"
    assert trust.record_outcome("e", "one", "g2", bad) is None
    fault = trust.record_outcome("e", "one", "g3", bad)
    assert fault is not None
    assert fault.connectors == ("one",)
    assert trust.wait("e", "one") > 0
    assert trust.wait("e", "two") == trust.wait("other", "one") == 0
    assert trust.record_outcome("e", "two", "g9", good) is None
    assert trust.wait("e", "one") > 0, "another connector's good response says nothing about this one"

    assert trust.record_outcome("e", "three", "g4", bad) is None
    whole = trust.record_outcome("e", "two", "g9", bad)
    assert whole is not None
    assert whole.connectors == ("three", "two")
    assert trust.wait("e", "four") > 0
    assert trust.wait("other", "four") == 0
    assert [fault.connectors for fault in trust.faults] == [("three", "two")]
    await asyncio.sleep(200)
    trust.enter("e", "four")
    assert trust.wait("e", "four") > 0, "one request probes for all connectors"
    trust.record_outcome("e", "four", "g5", good)
    assert trust.wait("e", "four") == 0
    trust.record_outcome("e", "one", "g3", good)
    assert trust.faults == ()


@in_virtual_time
async def test_response_of_another_sub_is_no_fault_of_the_environment() -> None:
    trust = TrustTracker(clock, lambda: 0.5)
    for n in range(10):
        assert trust.record_outcome("e", f"c{n}", f"g{n}", untrusted(2, DistrustReason.SUBJECT)) is None
    assert trust.faults == ()
