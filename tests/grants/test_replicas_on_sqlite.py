"""The guarantees for replicas, on a real SQLite file and with a real clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from akoya_gateway.config.model import Seconds, Tokens
from akoya_gateway.grants import GrantState
from akoya_gateway.store.sqlite import SQLiteStore
from tests.support.grants import GrantEnv, bearer

NO_BACKGROUND = replace(Tokens(), background=False, refresh_before=Seconds(60.0))


async def test_thousand_requests_at_three_replicas_make_one_token_call(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "grants.db"))
    await store.open()
    try:
        env = GrantEnv(managers=3, store=store, clock=time.time, tokens=NO_BACKGROUND, life=0.2)
        grant = await env.connect()
        await asyncio.sleep(0.25)
        env.provider.life = 900.0
        passed = await asyncio.gather(*(grants.get_fresh(grant) for grants in env.managers for _ in range(1000)))
        assert {bearer(each) for each in passed} == {"bearer-2"}
        assert dict(env.provider.uses) == {"refresh-1": 1}
    finally:
        await store.close()


async def test_grants_outlive_the_process(tmp_path: Path) -> None:
    path = str(tmp_path / "grants.db")
    store = SQLiteStore(path)
    await store.open()
    env = GrantEnv(store=store, clock=time.time, tokens=NO_BACKGROUND)
    grant = await env.connect()
    await env.manager.stop()
    await store.close()
    reopened = SQLiteStore(path)
    await reopened.open()
    try:
        later = GrantEnv(store=reopened, clock=time.time, tokens=NO_BACKGROUND)
        (found,) = (await later.manager.for_owner(grant.key.owner)).grants
        assert found == grant
        assert found.state is GrantState.LIVE
    finally:
        await reopened.close()


async def test_no_token_is_in_the_file(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "grants.db"))
    await store.open()
    env = GrantEnv(store=store, clock=time.time, tokens=NO_BACKGROUND)
    grant = await env.connect(owner="alice@example.com")
    await env.manager.disconnect(grant)
    await store.close()
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"bearer-1" not in content
        assert b"refresh-1" not in content
        assert b"alice" not in content
