"""Akoya fails while gateways serve: what users get, what operators see, and what becomes of the grant."""

from __future__ import annotations

import asyncio
import html
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway.endpoints.user_messages import STATE_TEXTS
from akoya_gateway.grants import Grant, GrantRepository, GrantState
from tests.chaos.clients import Response, fetch
from tests.chaos.conftest import FULL
from tests.chaos.replicas import CACHES, Fleet, Visitor, age, fingerprint, readyz
from tests.support.waiting import until_async

LIVES, ENDED = 50.0, -1.0


@pytest.fixture(scope="module", params=["dex", "hydra"] if FULL else ["hydra"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two gateways, whose client secret is in a file."""
    folder = tmp_path_factory.mktemp("pair")
    with Fleet(folder, 2, settings={"dialect": request.param}, secret_file=True) as fleet:
        yield fleet


async def aged(fleet: Fleet, repository: GrantRepository, visitor: Visitor, left: float) -> None:
    await age(repository, visitor.grant, left)
    await asyncio.sleep(CACHES)


async def everywhere(fleet: Fleet, visitor: Visitor) -> list[Response]:
    """Send three requests to each gateway."""
    return await asyncio.gather(*[fetch(port, visitor.cookie) for port in fleet.ports * 3])


async def get(repository: GrantRepository, visitor: Visitor) -> Grant:
    grant = await repository.get(visitor.grant)
    assert grant is not None
    return grant


async def wait_over(repository: GrantRepository, visitor: Visitor) -> None:
    """Skip the quarantine: the bearer has expired."""
    grant = await get(repository, visitor)
    ended = replace(grant.tokens, expires_at=grant.tokens.expires_at - 3600.0)
    assert await repository.write(replace(grant, retry_at=0.0, tokens=ended), after=grant.version)
    await asyncio.sleep(CACHES)


async def test_truncated_response_leaves_the_grant_uncertain_and_is_retried_once(pair: Fleet) -> None:
    visitor = pair.visitor()
    async with pair.book() as repository:
        await aged(pair, repository, visitor, LIVES)
        bearer = (await get(repository, visitor)).tokens.bearer.reveal()
        before = len(pair.refreshes())
        pair.akoya.fault("cut_after", "token.refresh_token", times=1)
        for _ in range(3):
            responses = await everywhere(pair, visitor)
            assert {(response.status, response.token) for response in responses} == {(200, bearer)}
        assert len(pair.refreshes()) == before + 1, "while the bearer is valid its refresh token is left alone"
        assert visitor.state() == "uncertain"
        assert STATE_TEXTS[GrantState.UNCERTAIN] in html.unescape(visitor.browser.go("/akoya/").text)

        await wait_over(repository, visitor)
        responses = [*await everywhere(pair, visitor), *await everywhere(pair, visitor)]
        assert {response.status for response in responses} == {401}
        assert [use["outcome"] for use in pair.refreshes()[before:]] == ["issued", "refused"]
        assert visitor.state() == "needs_reconnect"
        assert visitor.browser.connect().status_code == 302
        assert (await fetch(pair.port, visitor.cookie_now())).status == 200


async def test_request_with_a_lost_response_is_repaired_by_the_later_attempt(pair: Fleet) -> None:
    visitor = pair.visitor()
    async with pair.book() as repository:
        await aged(pair, repository, visitor, LIVES)
        pair.akoya.fault("cut_before", "token.refresh_token", times=1)
        assert {response.status for response in await everywhere(pair, visitor)} == {200}
        assert visitor.state() == "uncertain"
        await wait_over(repository, visitor)
        before = len(pair.refreshes())
        assert {response.status for response in await everywhere(pair, visitor)} == {200}
        assert [use["outcome"] for use in pair.refreshes()[before:]] == ["issued"]
        assert visitor.state() == "live"


async def test_provider_that_is_down_is_rarely_requested_and_the_old_token_is_passed(pair: Fleet) -> None:
    living, ended = pair.visitor(), pair.visitor("mikomo_4")
    async with pair.book() as repository:
        await age(repository, living.grant, LIVES)
        await aged(pair, repository, ended, ENDED)
        earlier = pair.akoya.counters().get("token", 0)
        pair.akoya.fault("status", "token.refresh_token", status=503)
        for _ in range(5):
            assert {response.status for response in await everywhere(pair, living)} == {200}
            responses = await everywhere(pair, ended)
            assert {response.status for response in responses} == {503}
            assert all(int(response.header("retry-after") or 0) > 0 for response in responses)
            assert all(response.header("set-cookie") is None for response in responses)
        assert pair.akoya.counters()["token"] - earlier <= 12, "60 requests, two grants, two gateways"
        pair.akoya.clear_faults()
        await until_async(lambda: served(pair, ended), "the grant is refreshed when the provider is back", within=40)
        assert ended.state() == "live"


async def test_rate_limited_provider_is_not_considered_down(pair: Fleet) -> None:
    visitors = [pair.visitor() for _ in range(8)]
    async with pair.book() as repository:
        for visitor in visitors:
            await age(repository, visitor.grant, ENDED)
        await asyncio.sleep(CACHES)
        pair.akoya.fault("status", "token.refresh_token", status=429, times=len(visitors))
        responses = await asyncio.gather(*[fetch(pair.port, visitor.cookie) for visitor in visitors])
        assert {response.status for response in responses} == {503}
        metrics = (await asyncio.to_thread(httpx.get, f"{pair.admin_url}/metrics", trust_env=False)).text
        assert 'outcome="provider-down"' in metrics
        assert not re.search(r"^akoya_gateway_provider_breaker_open\{.*\} 1", metrics, re.MULTILINE)
        for visitor in visitors:
            await until_async(partial(served, pair, visitor), "all requests are served")


async def served(fleet: Fleet, visitor: Visitor) -> bool:
    return {response.status for response in await everywhere(fleet, visitor)} == {200}


async def test_rotated_client_secret_loses_no_grant_and_is_reported_until_the_new_one_is_loaded(pair: Fleet) -> None:
    living, ended = pair.visitor(), pair.visitor("mikomo_4")
    async with pair.book() as repository:
        await age(repository, living.grant, LIVES)
        await aged(pair, repository, ended, ENDED)
        pair.akoya.rotate_secret("the~next~secret")
        assert {response.status for response in await everywhere(pair, living)} == {200}
        responses = await everywhere(pair, ended)
        assert {response.status for response in responses} == {503}
        assert all(b"invalid_client" not in response.body for response in responses), "not shown to users"
        status, report = await asyncio.to_thread(readyz, pair)
        assert (status, report["problems"]) == (200, []), "valid bearers are passed on, here as anywhere else"
        assert "clients.test-app: the provider returns invalid_client" in str(report["notes"])
        assert (living.state(), ended.state()) == ("live", "live")

        pair.secret.write_text("the~next~secret")
        for gateway in pair.gateways:
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
        await until_async(lambda: served(pair, ended), "it goes on with the right secret", within=90)
        for number in range(pair.size):
            await until_async(partial(without_notes, pair, number), "the note is gone")


async def without_notes(fleet: Fleet, number: int) -> bool:
    return not (await asyncio.to_thread(readyz, fleet, number))[1]["notes"]


async def test_tokens_of_another_login_are_refused(pair: Fleet) -> None:
    visitor = pair.visitor()
    async with pair.book() as repository:
        await aged(pair, repository, visitor, ENDED)
        pair.akoya.fault("wrong_sub", "token.refresh_token", times=1)
        before = len(pair.refreshes())
        assert {response.status for response in await everywhere(pair, visitor)} == {401}
        (issued,) = pair.refreshes()[before:]
        assert visitor.state() == "needs_reconnect"
        assert (await get(repository, visitor)).reason == "another_sub"
        await until_async(lambda: revoked(pair, issued["issued"]), "the foreign refresh token is revoked")


async def revoked(fleet: Fleet, token: str) -> bool:
    return any(event["presented"] == token for event in fleet.akoya.events("revoke"))


async def test_reconnecting_while_requests_wait_for_a_refresh_serves_them_all(pair: Fleet) -> None:
    """The result of the refresh in flight belongs to the older consent, and must not replace the newer one's tokens."""
    visitor = pair.visitor()
    async with pair.book() as repository:
        await aged(pair, repository, visitor, ENDED)
        before = len(pair.refreshes())
        pair.akoya.fault("slow_after", "token.refresh_token", seconds=2.0, times=1)
        pending = asyncio.ensure_future(everywhere(pair, visitor))
        await until_async(lambda: earlier(pair, before), "a refresh is in flight")
        pair.akoya.clear_faults()
        landed = await asyncio.to_thread(visitor.browser.connect)
        assert landed.status_code == 302
        assert "error" not in landed.headers["location"]
        newest = [event for event in pair.akoya.events("token") if event.get("grant_type") == "authorization_code"][-1]
        assert {response.status for response in await pending} == {200}
        grant = await get(repository, visitor)
        assert fingerprint(grant.tokens.bearer.reveal()) == newest["id_token"]
        assert grant.tokens.refresh_token is not None
        assert fingerprint(grant.tokens.refresh_token.reveal()) == newest["issued"]
        await age(repository, visitor.grant, ENDED)
        await asyncio.sleep(CACHES)
        assert (await fetch(pair.port, visitor.cookie_now())).status == 200
        assert visitor.state() == "live"


async def earlier(fleet: Fleet, before: int) -> bool:
    return len(await asyncio.to_thread(fleet.refreshes)) > before


class Hasty(Fleet):
    """A fleet that waits one second for the provider."""

    def config(self) -> dict[str, Any]:
        config = super().config()
        config["environments"]["double"]["timeout"] = "1s"
        return config


async def test_response_that_comes_while_the_process_is_paused_or_stopping_is_used(tmp_path: Path) -> None:
    """The pause exceeds `environment.timeout`, but the response is already in the socket when the process resumes."""
    with Hasty(tmp_path, 1, settings={"dialect": "hydra"}) as fleet:
        process = fleet.gateways[0].process
        assert process is not None
        visitor = fleet.visitor()
        async with fleet.book() as repository:
            await aged(fleet, repository, visitor, ENDED)
            fleet.akoya.fault("slow_after", "token.refresh_token", seconds=0.5, times=1)
            (port,) = fleet.ports
            pending = asyncio.create_task(fetch(port, visitor.cookie))
            await until_async(lambda: asyncio.to_thread(fleet.refreshes), "the provider has the refresh token")
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.6)
            process.send_signal(signal.SIGCONT)
            assert (await pending).status == 200
            assert (await get(repository, visitor)).state is GrantState.LIVE
            assert len(fleet.refreshes()) == 1

            # The next response comes after the timeout, and after the process was asked to stop.
            await aged(fleet, repository, visitor, ENDED)
            fleet.akoya.fault("slow_after", "token.refresh_token", seconds=4.0, times=1)
            assert (await fetch(port, visitor.cookie)).status != 200
            assert await asyncio.to_thread(fleet.gateways[0].stop) == 0
            assert (await get(repository, visitor)).state is GrantState.LIVE
            assert len(fleet.refreshes()) == 2
