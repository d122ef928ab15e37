"""Tests of the responses while refreshed ID tokens fail validation, and after the operator has fixed the cause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    Reply,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.support.gateway_in_process import Bank, InProcessEnv, Person

PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


class MisreadBank(Bank):
    """A bank whose refreshes succeed, but whose ID tokens all fail validation while `misread` is set."""

    misread = False
    unvalidated: frozenset[str] = frozenset()
    failure: TokenOutcome | None = None
    """The response to every refresh, if it is not None."""
    rejection: TokenOutcome | None = None
    """The response to every code exchange, if it is not None."""

    async def exchange(self, code: Secret, code_verifier: object = None, nonce: object = None) -> TokenOutcome:
        return self.rejection or await super().exchange(code, code_verifier, nonce)

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        if self.failure is not None:
            return self.failure
        response = await super().refresh(refresh_token, sub, nonce)
        if not self.misread or not isinstance(response, TokensIssued):
            return response
        self.unvalidated |= {response.tokens.bearer.reveal()}
        return Untrusted("`iss` is not `issuer`", response.tokens.refresh_token)


@pytest.fixture
async def env(tmp_path: Path) -> AsyncIterator[InProcessEnv]:
    env = InProcessEnv(tmp_path, "memory://")
    env.bank = MisreadBank(env.bank.client, env.clock)
    await env.startup()
    installed(env)
    yield env
    await env.gateway.shutdown()


def installed(env: InProcessEnv) -> None:
    env.use_bank()
    env.gateway.runtime.grants._refresher._providers = env.gateway.runtime.providers


async def waited(env: InProcessEnv, person: Person) -> None:
    """Move the clock to the next refresh."""
    (connection,) = json.loads((await person.go("/akoya/")).content)["connections"]
    grant = await env.gateway.runtime.grants.repository.get(to_record_id(connection["id"]))
    assert grant is not None
    env.later += max(grant.retry_at - env.clock(), 0.0) + 1.1


async def test_untrusted_responses_are_503_and_then_offer_to_reconnect(env: InProcessEnv) -> None:
    assert isinstance(env.bank, MisreadBank)
    person = Person(env)
    await person.connect()
    env.bank.misread = True
    env.later += env.bank.life - 10
    old = await person.go("/x")
    assert (old.status_code, old.text) == (200, "bearer-1"), "the old bearer must be used until it expires"
    await waited(env, person)
    env.later += 10

    for number in range(2, 6):
        response = await person.go("/x")
        problem = json.loads(response.content)
        assert response.status_code == 503
        assert problem["type"] == "urn:akoya-gateway:problem:untrusted-response"
        assert int(response.headers["retry-after"]) >= 1
        offered = problem.get("connect_url")
        assert offered == (None if number < 3 else "https://app.example.com/akoya/connect/mikomo")
        page = await person.http.get("/x", headers=PAGE)
        assert page.status_code == 503
        assert page.headers["retry-after"]
        assert ("/akoya/connect/mikomo" in page.text) is (number >= 3)
        (connection,) = json.loads((await person.go("/akoya/")).content)["connections"]
        assert connection["state"] == "live"
        assert connection["reconnect"] == (None if number < 3 else "/akoya/connect/mikomo")
        connections = (await person.http.get("/akoya/", headers=PAGE)).text
        assert ("cannot be verified" in connections) is (number >= 3)
        await waited(env, person)

    env.bank.misread = False
    again = await person.go("/x")
    assert (again.status_code, again.text) == (200, env.bank.families[0].bearers[-1])
    assert again.text not in env.bank.unvalidated
    (connection,) = json.loads((await person.go("/akoya/")).content)["connections"]
    assert connection["reconnect"] is None


@pytest.mark.parametrize(
    ("failure", "code", "is_offered"),
    [
        (ProviderDown("-", reply=Reply(400, "invalid_grant", "Try again later")), "provider-unavailable", True),
        (ProviderDown("-", reply=Reply(200, "invalid_request", "Try again later")), "provider-unavailable", True),
        (ProviderDown("-", reply=Reply(503)), "provider-unavailable", False),
        (ProviderDown("no connection"), "provider-unavailable", False),
        (ClientRejected("access_denied"), "registration-refused", True),
        (ClientRejected("invalid_client"), "registration-refused", False),
    ],
)
@pytest.mark.parametrize("is_uncertain", [False, True])
async def test_failures_that_may_be_those_of_one_grant_offer_to_reconnect_from_the_third_on(
    env: InProcessEnv, failure: TokenOutcome, code: str, is_offered: bool, is_uncertain: bool
) -> None:
    assert isinstance(env.bank, MisreadBank)
    person = Person(env)
    await person.connect()
    env.later += env.bank.life + 1
    if is_uncertain:
        env.bank.failure = OutcomeUnknown("timeout")
        assert (await person.go("/x")).status_code == 503
        await waited(env, person)
    env.bank.failure = failure
    for number in range(1, 6):
        response = await person.go("/x")
        problem = json.loads(response.content)
        assert (response.status_code, problem["type"].rpartition(":")[2]) == (503, code)
        expected = "/akoya/connect/mikomo" if is_offered and number >= 3 else None
        assert problem.get("connect_url") == (expected and f"https://app.example.com{expected}")
        (connection,) = json.loads((await person.go("/akoya/")).content)["connections"]
        if not is_uncertain:
            assert (connection["state"], connection["reconnect"]) == ("live", expected)
        page = await person.http.get("/x", headers=PAGE)
        assert ("Connect again" in page.text) is (expected is not None)
        connections = (await person.http.get("/akoya/", headers=PAGE)).text
        assert ("has not confirmed it recently" in connections) is (is_uncertain or expected is not None)
        await waited(env, person)

    env.bank.failure = None
    env.later += 120
    again = await person.go("/x")
    assert (again.status_code, again.text) == (200, env.bank.families[0].bearers[-1]), "the retries must go on"
    (connection,) = json.loads((await person.go("/akoya/")).content)["connections"]
    assert connection["reconnect"] is None


@pytest.mark.parametrize(("count", "note"), [(1, "environment sandbox: "), (2, "connectors.mikomo: ")])
async def test_failures_of_one_of_several_banks_are_reported_as_those_of_the_bank(
    env: InProcessEnv, count: int, note: str
) -> None:
    assert isinstance(env.bank, MisreadBank)
    config = env.gateway.runtime.config
    other = replace(config.connectors["mikomo"], key="other", id="other")
    await env.gateway.reload(
        replace(config, connectors={**config.connectors, "other": other} if count > 1 else config.connectors)
    )
    installed(env)
    people = [Person(env) for _ in range(5)]
    for person in people:
        await person.connect()
    env.bank.failure = ProviderDown("-", reply=Reply(503))
    env.later += env.bank.life + 1
    assert {(await person.go("/x")).status_code for person in people} == {503}
    assert [each.startswith(note) for each in env.gateway.runtime.grants.notes] == [True]
    assert (await env.gateway.runtime.check()) == [], "the gateway must stay ready"


async def test_client_that_is_rejected_when_users_connect_is_a_note_until_one_succeeds(env: InProcessEnv) -> None:
    assert isinstance(env.bank, MisreadBank)
    env.bank.rejection = ClientRejected("invalid_client")
    for _ in range(2):
        person = Person(env)
        path, _ = await person.callback()
        assert "error=client-refused" in (await person.go(path)).headers["location"]
        (note,) = env.gateway.runtime.grants.notes
        assert note.startswith("clients.demo-app: the provider returns invalid_client when users connect a bank")
    assert (await env.gateway.runtime.check()) == [], "the gateway must stay ready"
    env.bank.rejection = None
    await Person(env).connect()
    assert env.gateway.runtime.grants.notes == ()


async def test_reload_after_the_correction_serves_every_user_at_once(env: InProcessEnv) -> None:
    assert isinstance(env.bank, MisreadBank)
    people = [Person(env) for _ in range(6)]
    for person in people:
        await person.connect()
    env.bank.misread = True
    env.later += env.bank.life + 1
    for _ in range(6):
        assert {(await person.go("/x")).status_code for person in people} == {503}
        await waited(env, people[0])
    assert (await env.gateway.runtime.check()) == [], "the gateway must stay ready"
    (note,) = env.gateway.runtime.grants.notes
    assert "mikomo" in note
    assert {(await person.go("/x")).status_code for person in people} == {503}

    env.bank.misread = False
    await env.gateway.reload(env.gateway.runtime.config)
    installed(env)
    assert {(await person.go("/x")).status_code for person in people} == {200}
    assert env.gateway.runtime.grants.notes == ()
