"""Tests of a gateway's start, reload and shutdown when they overlap, and of requests before and after them.

At most one runtime is in force, and everything that was opened is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway import Gateway
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway import runtime as engine_module
from akoya_gateway.store.memory import MemoryStore
from tests.support.config_documents import error_lines, validated


class SlowStore(MemoryStore):
    """A store whose `open` blocks until the test allows it."""

    def __init__(self, stores: HeldStores) -> None:
        super().__init__()
        self._stores = stores

    async def open(self) -> None:
        self._stores.opening.set()
        await self._stores.may_open.wait()
        self._stores.open.append(self)

    async def close(self) -> None:
        self._stores.open.remove(self)


class HeldStores:
    """The stores that the gateways of a test open, and when they may open."""

    def __init__(self) -> None:
        self.opening = asyncio.Event()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.open: list[SlowStore] = []

    def hold(self) -> None:
        """Block the next store that is opened."""
        self.may_open.clear()
        self.opening.clear()


@pytest.fixture
async def stores(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HeldStores]:
    stores = HeldStores()
    before = asyncio.all_tasks()
    monkeypatch.setattr(engine_module, "open_store", lambda url, clock: SlowStore(stores))
    yield stores
    await asyncio.sleep(0)
    ours = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not ours, "a task is still running"
    assert not stores.open


def configured(folder: Path, **changes: Any) -> Config:
    result = validated(folder, {"sessions.store": "memory://", **changes})
    assert result.config is not None, error_lines(result)
    return result.config


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request may reach the app")


async def status(gateway: Gateway) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="https://app.example.com") as client:
        return (await client.get("/akoya/", headers={"accept": "application/json"})).status_code


async def test_request_after_the_end_opens_nothing(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    assert await status(gateway) == 200, "without lifespan events the first request must start the runtime"
    await gateway.shutdown()
    assert await status(gateway) == 503
    with pytest.raises(GatewayError):
        await gateway.reload(configured(tmp_path))
    assert gateway.current_runtime is None


async def test_it_may_be_started_again(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    for _ in range(2):
        first = await gateway.startup()
        await gateway.reload(configured(tmp_path))
        await asyncio.sleep(0)
        assert not first.providers._http.is_closed, "requests that started with it must be able to finish"
        assert await status(gateway) == 200
        await gateway.shutdown()


async def test_end_in_the_middle_of_the_start_leaves_nothing_open(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    stores.hold()
    starting = asyncio.create_task(status(gateway))
    await stores.opening.wait()
    ending = asyncio.create_task(gateway.shutdown())
    await asyncio.sleep(0)
    stores.may_open.set()
    await ending
    assert gateway.current_runtime is None
    await starting
    assert gateway.current_runtime is None


async def test_end_in_the_middle_of_a_reload_leaves_nothing_open(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    await gateway.startup()
    stores.hold()
    another = configured(tmp_path, **{"sessions.store": f"sqlite://{tmp_path}/other.db"})
    reloading = asyncio.create_task(gateway.reload(another))
    await stores.opening.wait()
    ending = asyncio.create_task(gateway.shutdown())
    await asyncio.sleep(0)
    stores.may_open.set()
    await ending
    with pytest.raises(GatewayError):
        await reloading
    assert gateway.current_runtime is None


async def test_waiter_for_the_start_does_not_restore_a_replaced_runtime(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    stores.hold()
    reloading = asyncio.create_task(gateway.reload(configured(tmp_path, prefix="/banks")))
    waiting = [asyncio.create_task(status(gateway)) for _ in range(3)]
    await stores.opening.wait()
    await asyncio.sleep(0)
    stores.may_open.set()
    await reloading
    await asyncio.wait(waiting)
    assert gateway.runtime.config.prefix == "/banks"
    await gateway.shutdown()


async def test_first_client_may_disconnect_during_the_start(tmp_path: Path, stores: HeldStores) -> None:
    gateway = Gateway(app, configured(tmp_path))
    stores.hold()
    first = asyncio.create_task(status(gateway))
    await stores.opening.wait()
    first.cancel()
    await asyncio.wait({first})
    stores.may_open.set()
    assert await status(gateway) == 200
    assert len(stores.open) == 1
    await gateway.shutdown()


async def test_end_after_a_reload_waits_for_the_refreshes_of_both_runtimes_together(
    tmp_path: Path, stores: HeldStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, they could take longer than the process has until it is killed."""
    gateway = Gateway(app, configured(tmp_path))
    first = await gateway.startup()
    await gateway.reload(configured(tmp_path))
    both = asyncio.Barrier(2)

    async def drain(timeout: float) -> int:
        async with asyncio.timeout(30):
            await both.wait()
        assert len(stores.open) == 1, "the store is open until both have finished"
        return 0

    for runtime in (first, gateway.runtime):
        monkeypatch.setattr(runtime.grants._refresher, "drain", drain)
    await gateway.shutdown()
