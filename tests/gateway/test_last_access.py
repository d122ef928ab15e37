"""Which requests count as activity of the owner, and what apps and background jobs are told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.sessions.last_access import PERIOD, rounded
from tests.support.gateway_in_process import InProcessEnv, Person


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the last access that the gateway passed."""
    header = dict(scope["headers"]).get(b"akoya-last-access", b"none")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": header})


async def passed(env: InProcessEnv, person: Person) -> tuple[int, int]:
    """Return the owner's last access as the app received it, and the latest time that it may have."""
    response = await person.go("/x")
    assert response.status_code == 200
    return int(datetime.fromisoformat(response.text).astimezone(UTC).timestamp()), int(env.clock())


async def owner_of(env: InProcessEnv, code: str) -> str:
    grant = await env.grant(code)
    assert grant is not None
    return grant.key.owner


async def test_last_access_is_the_time_of_the_request_and_survives_a_restart(tmp_path: Path) -> None:
    env = InProcessEnv(tmp_path, f"sqlite://{tmp_path}/grants.db", app)
    runtime = await env.startup()
    person = Person(env)
    owner = await owner_of(env, await person.connect())
    for _ in range(4):
        env.later += 61
        before = int(env.clock())
        at, after = await passed(env, person)
        assert at in {rounded(owner, second) for second in range(before, after + 1)}
        assert after - at < PERIOD + after - before
    await env.gateway.shutdown()
    env.later += 600
    runtime = await env.gateway.startup()
    assert await runtime.last_access.get(owner) == at
    await env.gateway.shutdown()


async def test_check_of_an_open_connection_is_no_activity(tmp_path: Path) -> None:
    env = InProcessEnv(tmp_path, "memory://", app)
    runtime = await env.startup()
    person = Person(env)
    owner = await owner_of(env, await person.connect())
    at, _ = await passed(env, person)
    cookie = "; ".join(f"{name}={value}" for name, value in person.http.cookies.items())
    headers = [(b"host", b"app.example.com"), (b"cookie", cookie.encode())]
    request = RequestInfo("GET", b"/x", b"", headers, "127.0.0.1", "r-1")
    env.later += 300
    assert await env.gateway._still_admitted(request)
    assert await runtime.last_access.get(owner) == at
    later, _ = await passed(env, person)
    assert later > at
    assert await runtime.last_access.get(owner) == later
    anonymous = RequestInfo("GET", b"/x", b"", headers[:1], "127.0.0.1", "r-1")
    assert not await env.gateway._still_admitted(anonymous)
    await env.gateway.shutdown()


async def test_client_cannot_set_the_last_access(tmp_path: Path) -> None:
    env = InProcessEnv(tmp_path, "memory://", app)
    await env.startup()
    person = Person(env)
    await person.connect()
    forged = {"akoya-last-access": "2099-01-01T00:00:00Z", "akoya_last_access": "2099-01-01T00:00:00Z"}
    response: httpx.Response = await person.http.get("/x", headers=forged)
    assert response.text.startswith("20")
    assert not response.text.startswith("2099")
    await env.gateway.shutdown()
