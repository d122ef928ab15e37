"""Disconnect, logout, the end of sessions, and key rotation: observed from outside, at two gateways."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from websockets.asyncio.client import ClientConnection, connect

from akoya_gateway.cli.rotate_store import rotate_store
from akoya_gateway.config import load_config
from akoya_gateway.gateway.connection_monitor import CLOSE_CODE
from tests.chaos.clients import fetch, load
from tests.chaos.replicas import Fleet, Visitor
from tests.support.waiting import until_async

SOON = 30.0
"""Maximum seconds until a WebSocket closes."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("pair"), 2) as fleet:
        yield fleet


@contextlib.asynccontextmanager
async def sockets(fleet: Fleet, visitor: Visitor) -> AsyncIterator[list[ClientConnection]]:
    """Open a WebSocket at each gateway and receive its first message."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for port in fleet.ports:
            where = connect(
                f"ws://127.0.0.1:{port}/accounts",
                origin=fleet.url,  # type: ignore[arg-type]
                additional_headers={"Cookie": visitor.cookie},
                proxy=None,
            )
            opened.append(await stack.enter_async_context(where))
            assert await opened[-1].recv() == "hello"
        yield opened


async def close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(SOON):
        await socket.wait_closed()
    return socket.close_code


async def post(visitor: Visitor, path: str) -> int:
    """Submit one of the page's own forms."""
    csrf = visitor.browser.connections()["csrf"]
    headers = {"origin": visitor.browser.env.url}
    response = await asyncio.to_thread(visitor.browser.http.post, path, data={"csrf": csrf}, headers=headers)
    return int(response.status_code)


@pytest.mark.parametrize("path", ["/akoya/disconnect/mikomo", "/akoya/logout"])
async def test_leaving_closes_websockets_at_every_gateway(pair: Fleet, path: str) -> None:
    leaver, stayer = pair.visitor(), pair.visitor("mikomo_4")
    async with sockets(pair, leaver) as mine, sockets(pair, stayer) as others:
        assert await post(leaver, path) == 303
        for socket in mine:
            assert await close_code(socket) == CLOSE_CODE
        await until_async(lambda: refused(pair, leaver), "no gateway uses what it read before")
        assert all(socket.close_code is None for socket in others)
        assert {(await fetch(port, stayer.cookie)).status for port in pair.ports} == {200}


async def refused(fleet: Fleet, visitor: Visitor) -> bool:
    return {(await fetch(port, visitor.cookie)).status for port in fleet.ports} == {401}


async def test_disconnecting_while_akoya_is_away_is_made_good_after_a_restart(tmp_path: Path) -> None:
    with Fleet(tmp_path, 1) as fleet:
        visitor = fleet.visitor()
        (issued,) = [event["issued"] for event in fleet.akoya.events("token")]
        fleet.akoya.fault("cut_before", "revoke")
        assert await post(visitor, "/akoya/disconnect/mikomo") == 303
        assert visitor.browser.connections()["connections"] == [], "deleted at once"
        assert (await fetch(fleet.port, visitor.cookie)).status == 401
        await until_async(lambda: tried(fleet), "revocation was attempted")
        fleet.gateways[0].kill()
        fleet.akoya.clear_faults()
        fleet.gateways[0].start()
        await until_async(lambda: revoked(fleet, issued), "the token is revoked after all", within=60)
        assert [grant["ended"] for grant in fleet.akoya.grants()] == ["revoked"]


async def tried(fleet: Fleet) -> bool:
    """Return whether a revocation was attempted, with an unknown outcome.

    If the kill comes before that is stored, the next attempt waits until the claim expires.
    """
    return "outcome-unknown" in fleet.gateways[0].log.read_text()


async def revoked(fleet: Fleet, token: str) -> bool:
    events = await asyncio.to_thread(fleet.akoya.events, "revoke")
    return any(event.get("presented") == token and event["outcome"] == "revoked" for event in events)


async def test_sessions_end_by_idleness_and_by_age(tmp_path: Path) -> None:
    keys, store = [{"env": "AKOYA_GATEWAY_KEY"}], f"sqlite://{tmp_path}/grants.db"
    cookie = {"idle": "3s", "lifetime": "6s"}
    with Fleet(tmp_path, 1, changes={"sessions": {"store": store, "keys": keys, "cookie": cookie}}) as fleet:
        idle, busy = fleet.visitor(), fleet.visitor("mikomo_4")
        began = used = time.monotonic()
        pause = 0.0
        while (await fetch(fleet.port, busy.cookie)).status == 200:
            now = time.monotonic()
            pause, used = max(pause, now - used), now
            assert used < began + 60, "activity does not extend it beyond its lifetime"
            await asyncio.sleep(0.3)
        # If the machine was so busy that two requests were seconds apart, the session may have ended by idleness.
        pause = max(pause, time.monotonic() - used)
        assert used - began > 3.0 or pause > 2.0, "activity extends it"
        assert (await fetch(fleet.port, idle.cookie)).status == 401


async def test_key_ring_rotation_under_load_logs_no_user_out(tmp_path: Path) -> None:
    with Fleet(tmp_path, 2) as fleet:
        new = tmp_path / "new-key"
        new.touch(0o600)
        new.write_text(base64.b64encode(os.urandom(32)).decode())
        old_entry, new_entry = {"env": "AKOYA_GATEWAY_KEY"}, {"file": str(new)}
        visitors = [fleet.visitor(), fleet.visitor("mikomo_4")]
        async with load(fleet.ports, [visitor.cookie for visitor in visitors]) as seen:
            await reload(fleet, [old_entry, new_entry])
            await reload(fleet, [new_entry, old_entry])
            path = fleet.gateways[0].config_path
            with environ(fleet.environ):
                assert await asyncio.to_thread(rotate_store, path) == 0
                later = await asyncio.to_thread(fleet.visitor, "mikomo_7")
                await reload(fleet, [new_entry])
            mark = seen.mark()
            await until_async(lambda: more(seen.mark(), mark + 50), "requests go on")
        assert seen.statuses() == {200}
        assert seen.lost == 0, seen.faults
        assert len(load_config(fleet.gateways[0].config_path, fleet.environ).sessions.keys) == 1
        for visitor in (*visitors, later):
            assert {(await fetch(port, visitor.cookie)).status for port in fleet.ports} == {200}
            assert visitor.state() == "live"


async def more(count: int, than: int) -> bool:
    return count > than


async def reload(fleet: Fleet, keys: list[dict[str, str]]) -> None:
    for gateway in fleet.gateways:
        config = yaml.safe_load(gateway.config_path.read_text())
        config["sessions"]["keys"] = keys
        gateway.config_path.write_text(yaml.safe_dump(config))
        assert gateway.process is not None
        before = gateway.log.read_text().count("configuration reloaded")
        gateway.process.send_signal(signal.SIGHUP)
        await until_async(partial(reloaded, gateway.log, before), "the configuration is reloaded")


async def reloaded(log: Path, before: int) -> bool:
    return log.read_text().count("configuration reloaded") > before


@contextlib.contextmanager
def environ(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
