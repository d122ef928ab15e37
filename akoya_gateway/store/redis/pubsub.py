"""Change notifications: one subscription connection per process, one channel per record that is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

from redis.asyncio.client import PubSub

from akoya_gateway.store.change_notifier import ChangeNotifier, Name
from akoya_gateway.store.redis.client import RedisClient
from akoya_gateway.store.redis.keys import KeySchema
from akoya_gateway.store.redis.server_errors import REDIS_ERRORS
from akoya_gateway.tasks import cancel_and_wait, keep_running

IDLE_SECONDS = 5.0
"""Seconds without a message after which the connection is pinged. After twice as long it is closed."""


class ChangeSubscriber:
    """Notifies `changes` when a record has changed or may have changed.

    A record may have changed unnoticed when its subscription begins and after the connection was lost.
    """

    def __init__(self, client: RedisClient, keys: KeySchema, changes: ChangeNotifier) -> None:
        self._client = client
        self._keys = keys
        self._changes = changes
        self._wanted: Counter[Name] = Counter()
        self._names: dict[str, Name] = {}
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    async def subscribe(self, name: Name) -> None:
        """Subscribe to changes of a record.

        A failure is ignored: the listener reconnects, and waiters also read at intervals.
        """
        channel = self._keys.channel(*name)
        self._wanted[name] += 1
        self._names[channel] = name
        if self._task is None:
            self._task = asyncio.create_task(keep_running("change listener", self._listen))
        elif self._pubsub is not None and self._wanted[name] == 1:
            with contextlib.suppress(Exception):
                await self._pubsub.subscribe(channel)

    async def unsubscribe(self, name: Name) -> None:
        """Unsubscribe when the last waiter of the record has left."""
        self._wanted[name] -= 1
        if self._wanted[name] > 0:
            return
        del self._wanted[name]
        channel = self._keys.channel(*name)
        del self._names[channel]
        if self._pubsub is not None:
            with contextlib.suppress(Exception):
                await self._pubsub.unsubscribe(channel)

    async def stop(self) -> None:
        """Stop the listener and close its connection."""
        self._stopped = True
        await cancel_and_wait(self._task)

    async def _listen(self) -> None:
        """Listen, and reconnect after every known error. After any other exception `keep_running` restarts this."""
        pause = 0.1
        while not self._stopped:
            began = time.monotonic()
            with contextlib.suppress(*REDIS_ERRORS):
                await self._listen_once()
            pause = 0.1 if time.monotonic() - began > IDLE_SECONDS else min(pause * 2, 2.0)
            await asyncio.sleep(pause)

    async def _listen_once(self) -> None:
        """Listen on one connection. Returns or raises when the connection is unusable."""
        pubsub, client = await self._client.pubsub()
        try:
            await pubsub.subscribe(self._keys.channel("", ""), *self._names)
            self._pubsub = pubsub
            last_message = time.monotonic()
            while time.monotonic() - last_message < 2 * IDLE_SECONDS:
                message: dict[str, Any] | None = await pubsub.get_message(timeout=IDLE_SECONDS)
                if message is None:
                    await pubsub.ping()
                    continue
                last_message = time.monotonic()
                if message["type"] in {"message", "subscribe"}:
                    name = self._names.get(message["channel"].decode())
                    if name is not None:
                        self._changes.notify(name)
        finally:
            self._pubsub = None
            await self._drop(pubsub, client)

    @staticmethod
    async def _drop(pubsub: PubSub, client: Any) -> None:
        with contextlib.suppress(Exception):
            await pubsub.aclose()
        if client is not None:
            with contextlib.suppress(Exception):
                await client.aclose(close_connection_pool=True)
