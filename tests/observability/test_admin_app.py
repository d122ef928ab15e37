"""Tests of the admin listener's responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import httpx
import pytest

from akoya_gateway.config.model import Logging
from akoya_gateway.observability.admin_app import AdminApp
from akoya_gateway.observability.health import Readiness
from akoya_gateway.observability.logs import open_log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.worker_stats import WorkerStats
from tests.support.waiting import until_async


def client(health: Readiness, metrics: Metrics | None = None) -> httpx.AsyncClient:
    worker_stats = WorkerStats(metrics or Metrics("1.2.3"), health, open_log(Logging(), lambda _: None))
    return httpx.AsyncClient(transport=httpx.ASGITransport(AdminApp(worker_stats)), base_url="http://admin")


def finding(*problems: str) -> Callable[[], Awaitable[Sequence[str]]]:
    async def check() -> Sequence[str]:
        return problems

    return check


async def test_livez_is_200_whatever_the_checks_return() -> None:
    async with client(Readiness(finding("store: gone"))) as admin:
        response = await admin.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_when_nothing_is_wrong() -> None:
    async with client(Readiness(finding(), lambda: ["sandbox: no calls for 12 s, the provider is down"])) as admin:
        response = await admin.get("/readyz")
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert response.json()["notes"] == ["sandbox: no calls for 12 s, the provider is down"]


async def test_not_ready_names_each_problem() -> None:
    async with client(
        Readiness(finding("store: x.db is read-only; make it writable", "clients.demo: bad secret"))
    ) as admin:
        response = await admin.get("/readyz")
    assert response.status_code == 503
    assert response.json()["problems"] == ["store: x.db is read-only; make it writable", "clients.demo: bad secret"]


async def test_problem_shows_no_secret() -> None:
    async with client(Readiness(finding("redis://user:hush@cache refused"))) as admin:
        response = await admin.get("/readyz")
    assert "hush" not in response.text


async def test_draining_is_not_ready_at_once() -> None:
    health = Readiness(finding())
    async with client(health) as admin:
        assert (await admin.get("/readyz")).status_code == 200
        health.drain()
        response = await admin.get("/readyz")
    assert response.status_code == 503
    assert response.json()["draining"] is True


async def test_check_that_raises_is_a_problem_and_not_a_500() -> None:
    async def check() -> Sequence[str]:
        raise RuntimeError("token=hush")

    async with client(Readiness(check)) as admin:
        response = await admin.get("/readyz")
    assert response.status_code == 503
    assert "RuntimeError" in response.json()["problems"][0]
    assert "hush" not in response.text


async def test_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("akoya_gateway.observability.health.CHECK_TIMEOUT", 0.05)

    async def check() -> Sequence[str]:
        await asyncio.sleep(60)
        return ()

    async with client(Readiness(check)) as admin:
        response = await admin.get("/readyz")
    assert response.status_code == 503
    assert "unreachable" in response.json()["problems"][0]


async def test_slow_check_repeats_the_last_result_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another program holds for two seconds does not take the gateway out of service."""
    monkeypatch.setattr("akoya_gateway.observability.health.RESPONSE_TIMEOUT", 0.02)
    monkeypatch.setattr("akoya_gateway.observability.health.CACHE_SECONDS", 0.0)
    problems: list[str] = []
    free = asyncio.Event()

    async def check() -> Sequence[str]:
        await free.wait()
        return list(problems)

    health = Readiness(check)
    async with client(health) as admin:
        first = (await admin.get("/readyz")).json()
        assert first["status"] == "not ready", "a process that has never been ready"
        assert "so far" in first["problems"][0]
        free.set()
        await until_async(lambda: returns(admin, "ready"), "the checks are done")
        free.clear()
        passing = await admin.get("/readyz")
        assert (passing.status_code, passing.json()["problems"]) == (200, [])
        assert "so far" in passing.json()["notes"][0]
        problems.append("store: locked by another process")
        free.set()
        await until_async(lambda: returns(admin, "not ready"), "the checks are done")
        free.clear()
        failing = await admin.get("/readyz")
        assert (failing.status_code, failing.json()["problems"]) == (503, ["store: locked by another process"])
        health.drain()
        draining = (await admin.get("/readyz")).json()
        assert (draining["status"], draining["draining"]) == ("not ready", True)
        free.set()


async def returns(admin: httpx.AsyncClient, status: str) -> bool:
    return bool((await admin.get("/readyz")).json()["status"] == status)


async def test_many_probes_at_once_are_one_round_of_checks() -> None:
    rounds = 0

    async def check() -> Sequence[str]:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0.01)
        return ()

    async with client(Readiness(check)) as admin:
        responses = await asyncio.gather(*(admin.get("/readyz") for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert rounds == 1


async def test_metrics_are_in_prometheus_text_format() -> None:
    async with client(Readiness(finding())) as admin:
        response = await admin.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "akoya_gateway_build_info{" in response.text
    assert 'version="1.2.3"' in response.text


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 404), ("GET", "/akoya/", 404), ("POST", "/livez", 405), ("HEAD", "/livez", 200), ("DELETE", "/metrics", 405),
])  # fmt: skip
async def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    async with client(Readiness(finding())) as admin:
        response = await admin.request(method, path)
    assert response.status_code == status
    if method == "HEAD":
        assert response.content == b""
    else:
        json.loads(response.text)
