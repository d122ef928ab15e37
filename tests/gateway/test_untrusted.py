"""Tests of the responses while refreshed ID tokens fail validation, and after the operator has fixed the cause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.oauth.outcomes import TokenOutcome, TokensIssued, Untrusted
from akoya_gateway.secret import Secret
from tests.support.gateway_in_process import Bank, InProcessEnv, Person

PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


class MisreadBank(Bank):
    """A bank whose refreshes succeed, but whose ID tokens all fail validation while `misread` is set."""

    misread = False
    unvalidated: frozenset[str] = frozenset()

    async def refresh(self, refresh_token: Secret, sub: str, nonce: str | None = None) -> TokenOutcome:
        response = await super().refresh(refresh_token, sub, nonce)
        if not self.misread or not isinstance(response, TokensIssued):
            return response
        self.unvalidated |= {response.tokens.bearer.reveal()}
        return Untrusted("`iss` is not `issuer`", response.tokens.refresh_token)


@pytest.fixture
async def env(tmp_path: Path) -> AsyncIterator[InProcessEnv]:
    env = InProcessEnv(tmp_path, "memory://")
    env.bank = MisreadBank(env.bank.client, env.clock)
    await env.gateway.startup()
    installed(env)
    yield env
    await env.gateway.shutdown()


def installed(env: InProcessEnv) -> None:
    env.gateway.runtime.providers._providers["demo-app"] = env.bank  # type: ignore[assignment]


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
    env.gateway.runtime.grants._refresher._providers = env.gateway.runtime.providers
    assert {(await person.go("/x")).status_code for person in people} == {200}
    assert env.gateway.runtime.grants.notes == ()
