"""One worker process: starts the service, serves requests, reloads, drains and shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.types import ASGIApp

from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.observability.admin_app import AdminApp, ExtraApp
from akoya_gateway.observability.health import Readiness, Report
from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.metrics import Metrics, Samples
from akoya_gateway.observability.shared_memory import SharedSlots
from akoya_gateway.observability.worker_stats import WorkerStats
from akoya_gateway.server.config_reloader import ConfigReloader
from akoya_gateway.server.config_watcher import ConfigWatcher
from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.refusal_log import RefusalLog
from akoya_gateway.server.service_manager import ServiceManager
from akoya_gateway.server.uvicorn_server import DrainingServer, WebSockets, server_config
from akoya_gateway.tasks import keep_running

START_FAILED = 3
"""Exit code of a worker that could not start. A restart with the same configuration may not help."""
ADMIN_GRACE = 1.0
"""Seconds that requests to the admin listener have to finish at shutdown."""


class Service(Protocol):
    """The service that a worker runs: its ASGI app and its lifecycle."""

    @property
    def app(self) -> ASGIApp: ...

    @property
    def protocol(self) -> Callable[..., LimitedHttpProtocol]:
        """Factory of the HTTP protocol for each connection."""

    @property
    def websockets(self) -> WebSockets:
        """WebSocket protocol class, or `"none"`."""

    @property
    def max_message(self) -> int:
        """Maximum bytes of a WebSocket message from a client, as currently configured: the largest of all upstreams."""

    @property
    def extra_app(self) -> ExtraApp | None:
        """App that the admin listener serves besides health and metrics, or None."""

    async def startup(self) -> None:
        """Start the service. Raises GatewayError, OSError or ValueError if it cannot serve."""

    async def shutdown(self) -> None:
        """Shut down after token refreshes in flight have finished."""

    # Replaces the running configuration.
    async def reload(self, config: Config) -> None: ...

    # Returns the problems that keep the service from being ready.
    async def check(self) -> Sequence[str]: ...

    # Returns remarks for the readiness report. They do not affect readiness.
    def notes(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `akoya-gateway run`."""

    grace: float = 30.0
    """Seconds that requests in progress have to finish at shutdown."""
    drain_delay: float = 0.0
    """Seconds to keep serving after readiness has become false, so that load balancers notice."""
    watch: bool = False
    """Whether to reload when the configuration files change."""
    fast_lane: bool = True
    """Whether to use the fast lane."""


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """The slot of one worker under a supervisor."""

    slots: SharedSlots
    number: int
    lifeline: int
    """File descriptor of a pipe that reaches EOF when the supervisor exits."""


class Worker:
    """Runs a service in this process, alone or under a supervisor (`slot`)."""

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        log: Log,
        *,
        load: Callable[[], Config],
        head_limit: int,
        field_limit: int,
        options: ServeOptions,
        slot: WorkerSlot | None = None,
        watch: ConfigWatcher | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._log = log
        self._options = options
        self._slot = slot
        self._watched = watch
        self._manager = manager
        self._head_limit = head_limit
        self._field_limit = field_limit
        self._readiness = Readiness(service.check, service.notes)
        slots, number = (slot.slots, slot.number) if slot is not None else (None, 0)
        self._stats = WorkerStats(metrics, self._readiness, log, slots=slots, slot=number)
        # Under a supervisor the counts of exited workers are kept, so they began when it started.
        metrics.set("start_timestamp_seconds", time.time() if slots is None else slots.created_at)
        # Under a supervisor, which has already logged configuration errors, log them at DEBUG.
        level = 10 if slot is not None else 40
        self._reloader = ConfigReloader(load, self._apply, log, metrics, level=level)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._public: DrainingServer | None = None
        metrics.sample("draining", lambda: [((), float(self._readiness.draining))])
        metrics.sample("file_descriptors_used_ratio", _file_descriptors_used)
        metrics.sample("requests_in_flight", self._requests_in_flight)
        metrics.sample("client_connections", self._client_connections)

    async def run(self, public: socket.socket, admin: socket.socket | None) -> int:
        """Serve until SIGTERM, and return the exit code."""
        self._listen_to_signals()
        try:
            await self._service.startup()
        except (GatewayError, OSError, ValueError) as error:
            self._log.error("start failed", reason=str(error))
            return START_FAILED
        config = server_config(
            self._service.app,
            head_limit=self._head_limit,
            field_limit=self._field_limit,
            protocol=self._service.protocol,
            max_message=self._service.max_message,
            websockets=self._service.websockets,
            refusal_log=RefusalLog(count=self._metrics.increment),
        )
        self._public = server = DrainingServer(config, self._options.grace)
        serving = asyncio.ensure_future(server.serve([public]))
        admin_server = self._serve_admin(admin)
        self._in_background(keep_running("heartbeat", self._stats.publish_forever))
        if self._watched is not None:
            watched = self._watched
            self._in_background(keep_running("file watch", lambda: self._watch(watched)))
        if self._manager is not None:
            self._manager.ready()
            self._in_background(self._manager.report_alive_forever())
        await self._until_stopped(serving)
        await self._drain(server, serving)
        await self._close(admin_server)
        return 0

    def stop(self) -> None:
        """Drain at the first call, stop without waiting at the second."""
        if self._stop.is_set() and self._public is not None:
            self._public.stop_now()
        self._stop.set()

    def _requests_in_flight(self) -> Samples:
        return [((), 0 if self._public is None else self._public.requests_in_flight)]

    def _client_connections(self) -> Samples:
        return [((), 0 if self._public is None else len(self._public.server_state.connections))]

    async def _apply(self, config: Config) -> None:
        await self._service.reload(config)
        if self._public is not None:
            # uvicorn reads it for each new WebSocket, so the change applies to those.
            self._public.config.ws_max_size = self._service.max_message

    def _serve_admin(self, listener: socket.socket | None) -> tuple[DrainingServer, asyncio.Future[None]] | None:
        if listener is None:
            return None
        app = AdminApp(self._stats, self._service.extra_app)
        server = DrainingServer(server_config(app, head_limit=16_384, websockets="none"), ADMIN_GRACE)
        return server, asyncio.ensure_future(server.serve([listener]))

    async def _until_stopped(self, serving: asyncio.Future[None]) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        futures: set[asyncio.Future[Any]] = {stopped, serving}
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _drain(self, server: DrainingServer, serving: asyncio.Future[None]) -> None:
        self._log.info("drain started", grace=self._options.grace, delay=self._options.drain_delay)
        if self._manager is not None:
            self._manager.stopping()
        self._readiness.drain()
        self._stats.publish(await self._readiness.report())
        if self._options.drain_delay:
            server.close_after_responses()
            hurried = asyncio.ensure_future(server.wait_stop_now())
            await asyncio.wait({hurried}, timeout=self._options.drain_delay)
            hurried.cancel()
        server.stop()
        await serving

    async def _close(self, admin: tuple[DrainingServer, asyncio.Future[None]] | None) -> None:
        await self._service.shutdown()
        for task in self._tasks:
            task.cancel()
        # Do not run the checks any more: the store that they use is closed.
        self._stats.publish(Report(os.getpid(), ready=False, draining=True, problems=["stopped"]))
        if admin is not None:
            admin[0].stop()
            await admin[1]
        self._log.info("stopped", pid=os.getpid())

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        for number in (signal.SIGINT, signal.SIGQUIT):
            if self._slot is None:
                loop.add_signal_handler(number, self.stop)
            else:
                # A terminal sends them to the whole process group; the supervisor forwards one SIGTERM.
                signal.signal(number, signal.SIG_IGN)
        if self._slot is not None:
            loop.add_reader(self._slot.lifeline, self._orphaned)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(self._reloader.reload()))
        # A SIGHUP may be pending since the start of the process (`cli.run` blocks it).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _orphaned(self) -> None:
        assert self._slot is not None
        asyncio.get_running_loop().remove_reader(self._slot.lifeline)
        self._log.error("supervisor exited", pid=os.getpid())
        self.stop()

    async def _watch(self, watch: ConfigWatcher) -> None:
        while True:
            await asyncio.sleep(1.0)
            if watch.changed():
                self._log.info("configuration change detected")
                await self._reloader.reload()

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _file_descriptors_used() -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the share of this process's file descriptors that are open, or nothing on systems without /proc."""
    with contextlib.suppress(OSError):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit > 0:
            yield (), sum(1 for _ in Path("/proc/self/fd").iterdir()) / limit
