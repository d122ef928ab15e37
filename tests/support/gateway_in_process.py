"""A gateway within the test process, with a provider that tracks its tokens and a clock that can be moved forward."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from akoya_gateway import Gateway
from akoya_gateway.config.model import Client
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.grants import Grant
from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.grants.serialization import decode
from akoya_gateway.oauth.outcomes import Refused, TokenOutcome, TokensIssued
from akoya_gateway.secret import Secret
from tests.support.config_documents import error_lines, validated
from tests.support.grants import Family, Provider
from tests.support.redis_servers import RedisServer

MOST = 100
"""Upper limit for the suspensions of a request, far more than any request has."""
AT_WORK = ("revocations", "orphans", "last access")
"""Background tasks that live as long as the runtime."""


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class Bank(Provider):
    """A provider whose calls take several event loop iterations, so that a request can be cancelled at each of them."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        super().__init__(clock, delay=0.0)
        # Revocations are sequential. The high rate keeps them from being paced.
        self.client = replace(client, environment=replace(client.environment, rate=1e6))
        self.spent_codes: set[str] = set()

    async def exchange(self, code: Secret, code_verifier: object = None, nonce: object = None) -> TokenOutcome:
        await turns(3)
        if code.reveal() in self.spent_codes:
            return Refused("invalid_grant")
        self.spent_codes.add(code.reveal())
        response = TokensIssued(self.consent(code.reveal()))
        await turns(3)
        return response

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        self.uses[refresh_token.reveal()] += 1
        await turns(3)
        response = self.act(refresh_token.reveal())
        await turns(3)
        return response

    def family(self, code: str) -> Family:
        return next(each for each in self.families if each.sub == code)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the ID token that the gateway injected."""
    token = dict(scope["headers"])[b"akoya-id-token"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": token})


class InProcessEnv:
    """A gateway with its bank and a clock that can be moved forward. It wraps `inner`."""

    def __init__(self, folder: Path, store: str, inner: Any = app) -> None:
        changes = {"sessions.store": store, "limits.connects_per_minute": 0, "tokens.background": False}
        result = validated(folder, changes)
        assert result.config is not None, error_lines(result)
        self.later = 0.0
        self.bank = Bank(result.config.clients["demo-app"], self.clock)
        self.gateway = Gateway(inner, result.config, clock=self.clock)
        self.codes = (f"code-{number}" for number in itertools.count())
        self.grant_ids: dict[str, str] = {}
        """The ids of the grants that `Person.connect` made, by their codes."""
        self._before = asyncio.all_tasks()

    def clock(self) -> float:
        return time.time() + self.later

    async def startup(self) -> Runtime:
        """Start the gateway and replace its provider by the bank. Return its runtime."""
        runtime = await self.gateway.startup()
        self.use_bank()
        return runtime

    def use_bank(self) -> None:
        """Replace the provider of the runtime by the bank, also after a reload."""
        self.gateway.runtime.providers._providers["demo-app"] = self.bank  # type: ignore[assignment]  # a double

    async def grant(self, code: str) -> Grant | None:
        """Return the grant as the store has it."""
        repository = self.gateway.runtime.grants.repository
        if code in self.grant_ids:  # a scan of a Redis store takes hundreds of commands
            return await repository.get(to_record_id(self.grant_ids[code]))
        async for record in repository._store.scan("grant"):
            grant = decode(record.body, record.version)
            if grant.key.sub == code:
                return grant
        return None

    async def settled(self) -> None:
        """Wait until all work that outlives the request has finished."""
        async with asyncio.timeout(20):
            while self._at_work():
                await asyncio.sleep(0.001)

    def _at_work(self) -> bool:
        others = asyncio.all_tasks() - self._before - {asyncio.current_task()}
        return any(task.get_name() not in AT_WORK and "_listen" not in repr(task) for task in others)

    async def revoked(self, code: str) -> None:
        async with asyncio.timeout(20):
            while not self.bank.family(code).ended:
                await asyncio.sleep(0.001)


class Person:
    """A user with a browser."""

    def __init__(self, env: InProcessEnv) -> None:
        self.env = env
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(env.gateway), base_url="https://app.example.com", cookies=httpx.Cookies()
        )

    async def go(self, path: str) -> httpx.Response:
        return await self.http.get(path, headers={"accept": "application/json"})

    async def callback(self) -> tuple[str, str]:
        """Start connecting a bank. Return the callback path and its code."""
        begun = await self.go("/akoya/connect/mikomo")
        (state,) = parse_qs(urlsplit(begun.headers["location"]).query)["state"]
        code = next(self.env.codes)
        return f"/akoya/callback?{urlencode({'state': state, 'code': code})}", code

    async def connect(self) -> str:
        path, code = await self.callback()
        assert "error" not in (await self.go(path)).headers["location"]
        (new,) = await self.connection_ids() - set(self.env.grant_ids.values())
        self.env.grant_ids[code] = new
        return code

    async def connection_ids(self) -> set[str]:
        return {connection["id"] for connection in json.loads((await self.go("/akoya/")).content)["connections"]}

    async def csrf(self) -> str | None:
        return json.loads((await self.go("/akoya/")).content)["csrf"]  # type: ignore[no-any-return]

    async def post(self, path: str, csrf: str) -> int:
        return (await self.http.post(path, data={"csrf": csrf})).status_code


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def env(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InProcessEnv]:
    store = {"memory": "memory://", "sqlite": f"sqlite://{tmp_path}/grants.db"}.get(request.param)
    if store is None:
        server: RedisServer = request.getfixturevalue("own_redis")
        store = f"{server.url}?timeout=20"  # on a busy machine, two seconds may pass without a response
    env = InProcessEnv(tmp_path, store)
    await env.startup()
    yield env
    await env.gateway.shutdown()
