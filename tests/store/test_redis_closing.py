"""A Redis that accepts a connection and closes it: at its client limit, during a failover, or behind a load balancer.

uvloop raises RuntimeError for a write to a transport that was closed between connecting and the first command. This is
not an exception of the Redis client library.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import Record
from akoya_gateway.store.change_notifier import ChangeNotifier
from akoya_gateway.store.redis.client import CommandLimiter, connect
from akoya_gateway.store.redis.keys import KeySchema
from akoya_gateway.store.redis.pubsub import ChangeSubscriber
from akoya_gateway.store.redis.store import RedisStore
from akoya_gateway.store.redis.url import parse
from tests.support.redis_servers import RedisServer, own_redis

__all__ = ["own_redis"]

RESET = struct.pack("ii", 1, 0)


class Closer:
    """A server that accepts and closes connections. `before` is called with each connection before it is closed."""

    def __init__(self, before: Callable[[socket.socket], object]) -> None:
        self._before = before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                with contextlib.suppress(OSError):
                    self._before(connection)
                connection.close()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


WAYS: dict[str, Callable[[socket.socket], object]] = {
    "closed": lambda connection: None,
    "reset": lambda connection: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET),
    "told": lambda connection: connection.send(b"-ERR max number of clients reached\r\n"),
}


@pytest.fixture(params=WAYS)
def closer(request: pytest.FixtureRequest) -> Iterator[Closer]:
    closer = Closer(WAYS[request.param])
    yield closer
    closer.stop()


def unopened(port: int) -> RedisStore:
    """Return a store as `open` leaves it. It is not opened, because `open` would fail with this server."""
    url = parse(f"redis://127.0.0.1:{port}?timeout=1")
    store = RedisStore(url)
    store._limiter, store._client = CommandLimiter(url), connect(url)
    store._subscriber = ChangeSubscriber(store._client, store._keys, store._changes)
    return store


def test_every_verb_is_unavailable_while_connections_are_closed(closer: Closer) -> None:
    async def run() -> Counter[type]:
        store = unopened(closer.port)
        seen: Counter[type] = Counter()
        for _ in range(40):
            record = Record("grant", "k", b"sealed", group="o")
            # Several calls of several commands at a time, so that a transport closes between connecting and writing.
            operations: list[Awaitable[object]] = [
                store.get("grant", "k"), store.find("grant", "o"), store.put(record), store.reseal(record),
                store.delete("grant", "k"), store.take("grant", "k"), store.count("grant"), store.kinds(), store.check(),
                *[store.delete("grant", f"k{n}") for n in range(7)],
            ]  # fmt: skip
            seen.update(type(each) for each in await asyncio.gather(*operations, return_exceptions=True))
        await store.close()
        return seen

    assert uvloop.run(run()) == {StoreUnavailable: 640}


class Ears:
    """A client whose subscriptions fail with the given exceptions in turn, and then always with OSError."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.calls = 0

    async def pubsub(self) -> object:
        self.calls += 1
        raise self.faults.pop(0) if self.faults else OSError("away")


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("the handler is closed"), ValueError("of a later client library"), IndexError("no slot")],
    ids=repr,
)
async def test_change_listener_begins_again_after_any_exception(fault: Exception) -> None:
    ears = Ears(fault, fault)
    notices = ChangeSubscriber(ears, KeySchema("t"), ChangeNotifier())  # type: ignore[arg-type]
    await notices.subscribe(("grant", "k"))
    async with asyncio.timeout(30):
        while ears.calls < 4:
            await asyncio.sleep(0.02)
    await notices.stop()


def test_waiter_is_notified_again_after_connections_were_closed(
    closer: Closer, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscriber is connected to a server that closes, then to a real one, and must report changes again."""
    # `changed` alone would also notice the change, but only when it reads again, here long after the test has failed.
    monkeypatch.setattr("akoya_gateway.store.redis.store.WATCH_INTERVAL", 600.0)

    async def run() -> None:
        store = RedisStore.from_url(own_redis.url)
        await store.open()
        closing = connect(parse(f"redis://127.0.0.1:{closer.port}?timeout=1"))
        real, store._subscriber._client = store._subscriber._client, closing
        await store.put(Record("grant", "k", b"sealed"))
        waiter = asyncio.ensure_future(store.changed("grant", "k", 1, 600))
        async with asyncio.timeout(30):
            while closer.accepted < 2:
                await asyncio.sleep(0.02)
        store._subscriber._client = real
        async with asyncio.timeout(30):
            while store._subscriber._pubsub is None:
                await asyncio.sleep(0.02)
        await store.put(Record("grant", "k", b"sealed", 2))
        async with asyncio.timeout(30):
            found = await waiter
        assert found is not None
        assert found.version == 2
        await closing.close()
        await store.close()

    uvloop.run(run())
