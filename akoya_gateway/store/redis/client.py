"""Redis clients for a single server, Sentinel and Cluster. Every call has a timeout and no write is sent twice.

By default the client library repeats a command whose response was lost. A repeated compare-and-set would report a
conflict with its own successful first attempt. Retries of the library are therefore switched off (`connections`), and
this module retries only reads, once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoScriptError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from akoya_gateway.deadline import running_timeout
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.redis.connections import (
    PrimaryConnection,
    TLSPrimaryConnection,
    client_for,
    connection_class,
    options,
)
from akoya_gateway.store.redis.scripts import Call
from akoya_gateway.store.redis.sentinels import Sentinels
from akoya_gateway.store.redis.server_errors import error_code, error_text
from akoya_gateway.store.redis.url import RedisURL, Topology

MAX_CONNECTIONS = 16
"""Maximum number of commands in flight in the whole process."""
TOTAL_TIMEOUT_FACTOR = 3
"""Multiple of the round-trip timeout that one store operation may take in total."""


class RedisClient(Protocol):
    """Interface of the clients for a single server and for a cluster."""

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in order, once each. Raises what the client library raises."""

    async def read(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run read-only commands, in one round trip if possible."""

    async def each(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run all commands in order and return a result for each: the response, or an exception if it was rejected."""

    async def try_listening(self, channel: str) -> Any:
        """Subscribe to a channel and unsubscribe again. Return the response, or an exception if it was rejected."""

    def indexes(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield the names of the sorted sets that match, found by SCAN on every server. Slow."""
        ...

    async def pubsub(self) -> tuple[PubSub, Any]:
        """Return a new subscription connection, and a client to `aclose()` after it, or None."""

    async def close(self) -> None:
        """Close all connections."""
        ...


class TooFewReplicas(StoreUnavailable):
    """The server responded, but too few replicas have the write."""


class CommandLimiter:
    """Limits the number of commands in flight and converts their errors to `StoreUnavailable`."""

    def __init__(self, url: RedisURL) -> None:
        self._where = url.where
        self._limit = url.timeout * TOTAL_TIMEOUT_FACTOR
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._closed = False

    def close(self) -> None:
        """Reject all further commands.

        A waiting caller must not open a connection after the last one was closed.
        """
        self._closed = True

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot and hold it for the duration of the block.

        Raises:
            StoreUnavailable: For every exception, known or unknown: callers can only act on the fact that the record
                was not read, or perhaps not written.
        """
        try:
            self._check_open()
            async with running_timeout(self._limit), self._free:
                self._check_open()
                yield
        except StoreUnavailable:
            raise
        except Exception as fault:
            raise self.translated_errors(fault) from fault

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def translated_errors(self, fault: Exception) -> StoreUnavailable:
        """Return a `StoreUnavailable` that describes the error."""
        return StoreUnavailable(f"{self._where}: {error_text(fault)}")


def connect(url: RedisURL) -> RedisClient:
    """Return a client for the URL. Sends nothing yet; must be called while the event loop runs."""
    if url.topology is Topology.CLUSTER:
        return _Cluster(url)
    return _SingleServer(url)


class _SingleServer:
    """Client for one server, or for the primary that the sentinels name."""

    def __init__(self, url: RedisURL) -> None:
        self._wait = (url.wait, int(url.timeout * 1000 * 0.8))
        self._sentinels: Sentinels | None = None
        if url.topology is Topology.SENTINEL:
            self._sentinels = Sentinels(url)
            connection = TLSPrimaryConnection if url.tls else PrimaryConnection
            self._client = self._sentinels.master_for(url.service, db=url.database, connection_class=connection)
        else:
            # More connections than `CommandLimiter` allows commands: the subscription needs one too.
            self._client = client_for(url, *url.hosts[0], max_connections=MAX_CONNECTIONS + 2)

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        results = await self._send([call.by_digest for call in calls])
        if any(isinstance(result, NoScriptError) for result in results):
            # Listing is idempotent, and a command that got NOSCRIPT was not executed: only those are sent again, in
            # order.
            for n, call in enumerate(calls):
                if isinstance(results[n], NoScriptError):
                    results[n] = (await self._send([call.whole]))[0]
        for result in await self._disconnect_if_demoted(results):
            if isinstance(result, Exception):
                raise result
        return results

    async def _disconnect_if_demoted(self, results: list[Any]) -> list[Any]:
        if any(isinstance(result, Exception) and error_code(result) == "READONLY" for result in results):
            # The server was demoted: drop the connections, so that the sentinels are queried for the new primary.
            await self._client.connection_pool.disconnect()
        return results

    async def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        replicas, milliseconds = self._wait
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            if replicas:
                pipeline.execute_command("WAIT", replicas, milliseconds)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        if replicas:
            reached = results.pop()
            if isinstance(reached, Exception):
                raise reached
            if reached < replicas:
                raise TooFewReplicas(f"only {reached} of {replicas} replicas have the write (wait={replicas})")
        return results

    async def read(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        for last in (False, True):
            try:
                if len(commands) == 1:
                    return [await self._client.execute_command(*commands[0])]
                async with self._client.pipeline(transaction=False) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    return list(await pipeline.execute())
            except (RedisConnectionError, RuntimeError):
                if last:
                    raise
        raise AssertionError

    async def each(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await self._disconnect_if_demoted(list(await pipeline.execute(raise_on_error=False)))

    async def try_listening(self, channel: str) -> Any:
        """Subscribe and unsubscribe on a pooled connection.

        The connection is reusable afterwards, so /readyz does not open a new one each time.
        """
        return (await self.each([("SUBSCRIBE", channel), ("UNSUBSCRIBE", channel)]))[0]

    async def indexes(self, pattern: str) -> AsyncIterator[bytes]:
        async for key in self._client.scan_iter(pattern, count=2000, _type="ZSET"):
            yield key

    async def pubsub(self) -> tuple[PubSub, Any]:
        return self._client.pubsub(), None

    async def close(self) -> None:
        await self._client.aclose(close_connection_pool=True)
        if self._sentinels is not None:
            await self._sentinels.aclose()


class _Cluster:
    """Client for a cluster."""

    def __init__(self, url: RedisURL) -> None:
        self._address = url
        self._client = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in url.hosts],
            max_connections=MAX_CONNECTIONS + 2,
            require_full_coverage=False,
            # Keep the servers of the URL as startup nodes: the addresses of discovered nodes may all become invalid one
            # day.
            dynamic_startup_nodes=False,
            **options(url),
        )
        # The library has no parameter for it. Nodes that it discovers get the class of `connection_kwargs`.
        self._client.connection_kwargs["connection_class"] = connection_class(url)
        for node in self._client.startup_nodes:
            node.connection_class = connection_class(url)

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        results = []
        for call in calls:
            with suppress(NoScriptError):
                results.append(await self._client.execute_command(*call.by_digest))
                continue
            # Outside the block: an error of this command is not described by the one before (`error_text`).
            results.append(await self._client.execute_command(*call.whole))
        return results

    async def read(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        for last in (False, True):
            try:
                if len(commands) == 1:
                    return [await self._client.execute_command(*commands[0])]
                pipeline = self._client.pipeline()
                for command in commands:
                    pipeline.execute_command(*command)
                return list(await pipeline.execute())
            except (RedisConnectionError, RedisTimeoutError, RedisClusterException, RuntimeError) as fault:
                # When a single command fails, the library refreshes its slot map. Its pipelines do not when retries are
                # off, and would keep sending to a dead server.
                await self._client.nodes_manager.initialize()
                if last or isinstance(fault, RedisTimeoutError):
                    raise
        raise AssertionError

    async def each(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        results: list[Any] = []
        for command in commands:
            try:
                results.append(await self._client.execute_command(*command))
            except ResponseError as fault:
                results.append(fault)
        return results

    async def try_listening(self, channel: str) -> Any:
        pubsub, client = await self.pubsub()
        try:
            await pubsub.subscribe(channel)
            return await pubsub.get_message(timeout=self._address.timeout)
        except ResponseError as fault:
            return fault
        finally:
            await pubsub.aclose()
            await client.aclose(close_connection_pool=True)

    async def indexes(self, pattern: str) -> AsyncIterator[bytes]:
        async for key in self._client.scan_iter(pattern, count=2000, _type="ZSET", target_nodes=RedisCluster.PRIMARIES):
            yield key

    async def pubsub(self) -> tuple[PubSub, Any]:
        """Connect to any primary: the cluster bus carries messages to every node."""
        await self._client.initialize()
        node = random.choice(self._client.get_primaries())  # noqa: S311  # load spreading, not security
        client = client_for(self._address, node.host, int(node.port), max_connections=1)
        return client.pubsub(), client

    async def close(self) -> None:
        await self._client.aclose()
