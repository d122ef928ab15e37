"""Tests that the connection monitor checks each open connection independently of the others."""

from __future__ import annotations

import asyncio

import pytest

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.errors import StoreUnavailable, UserError
from akoya_gateway.gateway.connection_monitor import CLOSE_CODE, ConnectionMonitor, MonitoredConnection


def request_info(name: str) -> RequestInfo:
    return RequestInfo("GET", b"/" + name.encode(), b"", [], None, name, websocket=True)


class Room:
    """A connection monitor with scripted checks: `fates` maps a socket's name to the result of its next checks."""

    def __init__(self, every: float = 0.02) -> None:
        self.fates: dict[str, bool | Exception | float] = {}
        self.closed: dict[str, int] = {}
        self.stuck: set[str] = set()
        self.sockets = ConnectionMonitor(self.still_admitted, every=every, check_timeout=0.3)

    async def still_admitted(self, request: RequestInfo) -> bool:
        fate = self.fates.get(request.request_id, True)
        if isinstance(fate, Exception):
            raise fate
        if isinstance(fate, float):
            await asyncio.sleep(fate)
            return False
        return fate

    def open(self, name: str) -> MonitoredConnection:
        async def close(code: int) -> None:
            if name in self.stuck:
                await asyncio.sleep(3600)
            self.closed[name] = code

        socket = MonitoredConnection(request_info(name), close)
        self.sockets.add(socket)
        return socket

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(30):
            while not self.closed.keys() >= set(names):
                await asyncio.sleep(0.01)


async def test_socket_whose_look_takes_long_does_not_keep_the_others_open() -> None:
    room = Room()
    room.fates = {"slow": 3600.0, "gone": False}
    for name in ("slow", "gone", "good"):
        room.open(name)
    await room.until("gone")
    assert room.closed == {"gone": CLOSE_CODE}
    await asyncio.sleep(0.4)
    assert len(room.sockets) == 2, "a connection whose check times out stays open"
    await room.sockets.stop()


async def test_disconnect_rechecks_connections_at_once() -> None:
    room = Room(every=3600)
    room.open("gone")
    await asyncio.sleep(0.05)
    room.fates["gone"] = False
    room.sockets.check_now()
    await room.until("gone")
    await room.sockets.stop()


async def test_peer_that_does_not_read_its_close_does_not_keep_the_others_open() -> None:
    room = Room()
    room.stuck = {"deaf"}
    room.fates = {"deaf": False}
    room.open("deaf")
    await asyncio.sleep(0.1)
    room.fates["gone"] = False
    room.open("gone")
    await room.until("gone")
    await room.sockets.stop()


async def test_unexpected_exception_closes_that_connection_and_checks_continue() -> None:
    room = Room()
    room.fates = {"broken": RuntimeError("x"), "away": StoreUnavailable("x"), "refused": UserError("x")}
    for name in ("broken", "away", "refused"):
        room.open(name)
    await room.until("broken", "refused")
    assert "away" not in room.closed
    room.fates["away"] = False
    await room.until("away")
    await room.sockets.stop()


@pytest.mark.parametrize("turns", range(6))
async def test_monitor_stops_in_any_iteration_after_check_now(turns: int) -> None:
    """`stop` works in whichever event loop iteration it arrives after `check_now`."""
    room = Room(every=3600)
    room.open("good")
    await asyncio.sleep(0.01)
    room.sockets.check_now()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await room.sockets.stop()
