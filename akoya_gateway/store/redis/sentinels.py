"""Finds the primary through Redis Sentinel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redis.asyncio import Sentinel
from redis.asyncio.sentinel import MasterNotFoundError

from akoya_gateway.store.redis.connections import client_for, options
from akoya_gateway.store.redis.server_errors import error_text
from akoya_gateway.store.redis.url import RedisURL

MAX_CONNECTIONS = 4
"""Maximum connections to one sentinel. Each serves a query that takes one round trip."""


class NoPrimary(MasterNotFoundError):
    """No sentinel names a primary. The text says why, and quotes neither a server nor a password."""


class Sentinels(Sentinel):
    """The sentinels of a URL. Any error of one of them is its own: the others are queried as well.

    The library gives up after the first sentinel that responds with an error, and its exception quotes the responses.
    """

    def __init__(self, url: RedisURL) -> None:
        Sentinel.__init__(self, [], **options(url))
        as_sentinel = replace(url, username=url.sentinel_username, password=url.sentinel_password, database=0)
        self.sentinels = [client_for(as_sentinel, *host, max_connections=MAX_CONNECTIONS) for host in url.hosts]
        self._hosts = {
            id(sentinel): f"{host}:{port}" for sentinel, (host, port) in zip(self.sentinels, url.hosts, strict=True)
        }

    async def discover_master(self, service_name: str) -> tuple[Any, Any]:
        """Return the host and port of the primary. Raises `NoPrimary`."""
        reason = f"the sentinels do not know the service `{service_name}`"
        faults = []
        for sentinel in tuple(self.sentinels):
            try:
                services: Any = await sentinel.sentinel_masters()
            except Exception as fault:
                faults.append(f"{self._hosts[id(sentinel)]}: {error_text(fault)}")
                continue
            state = services.get(service_name)
            if state and self.check_master_state(state, service_name):
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                return state["ip"], state["port"]
            if state:
                reason = f"the sentinels have no primary for `{service_name}` that is up"
        if len(faults) == len(self.sentinels):
            reason = "no sentinel can be used"
        raise NoPrimary("; ".join([reason, *faults[:3]]))
