"""The sidecar: `Gateway` in front of a reverse proxy, served by uvicorn in one process or several."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn
import uvloop
from starlette.types import ASGIApp

from akoya_gateway.config import load_config
from akoya_gateway.config.diagnostics import ConfigurationError
from akoya_gateway.config.model import Config, WebSocketBounds
from akoya_gateway.entrypoints.known_series import create_known_series
from akoya_gateway.entrypoints.observers import build_observers
from akoya_gateway.errors import GatewayError, OperatorError
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.fast_lane.uvicorn_protocol import FastLaneProtocol
from akoya_gateway.gateway.admin_data import AdminApps
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.sampled_metrics import SampledMetrics
from akoya_gateway.gateway.upstream_router import UpstreamRouter, no_upstream
from akoya_gateway.observability.access_log import AccessLog
from akoya_gateway.observability.logs import Log, configure_process_logging
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.stdout import StandardOutput
from akoya_gateway.server.config_reloader import log_diagnostics
from akoya_gateway.server.config_watcher import ConfigWatcher
from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.listeners import bind, bound, release
from akoya_gateway.server.service_manager import ServiceManager
from akoya_gateway.server.supervisor import Supervisor, SupervisorHooks
from akoya_gateway.server.uvicorn_api import TESTED, is_tested, missing_names
from akoya_gateway.server.uvicorn_server import WebSockets
from akoya_gateway.server.websocket_protocol import DetachableWebSocketProtocol, GuardedWebSocketProtocol
from akoya_gateway.server.worker import ServeOptions, Worker, WorkerSlot
from akoya_gateway.store import describe, open_store
from akoya_gateway.tasks import cancel_and_wait, keep_running
from akoya_gateway.version import __version__

RESTART_KEYS = ("listen", "admin", "logging")
"""Configuration keys that a reload does not apply. Changing them requires a restart."""


def serve(path: Path, *, workers: int = 1, options: ServeOptions | None = None) -> int:
    """Run the gateway with the configuration at `path` until SIGTERM, and return the exit code.

    Raises:
        ConfigurationError: The file has errors.
        OperatorError: The gateway cannot listen, or the configuration does not allow this number of workers.
    """
    options = options or ServeOptions()
    # Start watching before the file is read, so that no change is missed.
    watch = ConfigWatcher(path) if options.watch else None
    config = load_config(path)
    _require_shared_store(config, workers)
    _import_late_modules(config)
    output = StandardOutput()
    log = configure_process_logging(config.logging, output)
    if options.fast_lane and not _uvicorn_fits(log):
        options = replace(options, fast_lane=False)
    public = bind("listen", config.listen)
    try:
        admin = bind("admin.listen", config.admin) if config.admin is not None else None
    except OperatorError:
        release(public, config.listen)
        raise
    try:
        _announce(log, config, public, admin, workers)
        keep_freed_memory()
        # Everything allocated so far is permanent: keep it out of garbage collection, and let forked workers share its
        # pages.
        gc.freeze()
        gc.enable()
        run = _ServerRun(path, config, workers, options, log, output, watch, public, admin)
        return run.run_supervised() if workers > 1 else run.run_single()
    finally:
        release(public, config.listen)
        if admin is not None and config.admin is not None:
            release(admin, config.admin)


class _ServerRun:
    """One run of the sidecar. `_configs` holds the latest valid configuration, then the one before it."""

    def __init__(
        self,
        path: Path,
        config: Config,
        workers: int,
        options: ServeOptions,
        log: Log,
        output: StandardOutput,
        watch: ConfigWatcher | None,
        public: socket.socket,
        admin: socket.socket | None,
    ) -> None:
        self._watch = watch
        self._path = path
        self._configs = [config]
        self._workers = workers
        self._options = options
        self._log = log
        self._output = output
        self._public = public
        self._admin = admin
        self._manager = ServiceManager(os.environ)

    def run_single(self) -> int:
        try:
            return self._run_worker(None)
        except Exception:
            # Log it here: the interpreter's traceback would be neither a single line nor redacted.
            self._log.exception("gateway failed", pid=os.getpid())
            return 70

    def run_supervised(self) -> int:
        hooks = SupervisorHooks(
            serve=self._run_worker,
            reload=self._reload,
            fall_back=self._fall_back,
            changed=self._watch.changed if self._watch is not None else lambda: False,
            on_draining=self._stop_listening,
        )
        stop_timeout = self._options.grace + self._options.drain_delay
        return Supervisor(hooks, self._workers, self._log, stop_timeout=stop_timeout, manager=self._manager).run()

    def _run_worker(self, slot: WorkerSlot | None) -> int:
        """Run the server in the worker process and return its exit code.

        A forked worker has its own socket descriptors, so closing them does not affect other workers.
        """
        config = self._configs[0]
        metrics = Metrics(__version__)
        access = AccessLog(config.logging, self._output.gather)
        service = Sidecar(config, metrics, self._log, access, fast_lane=self._options.fast_lane)
        worker = Worker(
            service,
            metrics,
            self._log,
            load=self._load,
            head_limit=config.limits.header_bytes,
            field_limit=config.limits.header_fields,
            options=self._options,
            slot=slot,
            watch=self._watch if slot is None else None,
            manager=self._manager if slot is None else None,
        )
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(worker.run(self._public, self._admin))
        finally:
            # Write the lines that the last turn of the event loop has gathered.
            self._output.flush()

    def _stop_listening(self) -> None:
        """Close the listening sockets in the supervisor.

        The kernel accepts connections on a socket as long as any process holds it open.
        """
        self._public.close()
        if self._admin is not None:
            self._admin.close()

    def _load(self) -> Config:
        config = load_config(self._path)
        _require_shared_store(config, self._workers)
        if bool(config.all_upstreams) != bool(self._configs[0].all_upstreams):
            raise OperatorError("upstream: adding the first upstream or removing the last one requires a restart")
        return config

    def _reload(self) -> None:
        """Reload the configuration in the supervisor, for workers started from now on.

        Errors are logged here, once instead of by each worker.
        """
        try:
            config = self._load()
        except ConfigurationError as error:
            log_diagnostics(self._log, error)
        except GatewayError as error:
            self._log.error("new configuration not applied", reason=str(error))
        else:
            _log_unchanged_settings(self._log, self._configs[-1], config)
            self._configs = [config, self._configs[0]]

    def _fall_back(self) -> None:
        if len(self._configs) > 1:
            self._log.error("configuration rolled back")
            self._configs = self._configs[1:]


class Sidecar:
    """The gateway, the reverse proxies and the `Date` header of their responses. Implements `server.worker.Service`."""

    def __init__(
        self, config: Config, metrics: Metrics, log: Log, access: AccessLog, *, fast_lane: bool = True
    ) -> None:
        self._config = config
        self._metrics = metrics
        create_known_series(metrics, config)
        self._log = log
        self._router = UpstreamRouter(config, metrics) if config.all_upstreams else None
        date_header = DateHeader()
        self._gateway = Gateway(
            self._router or no_upstream,
            config,
            observers=build_observers(metrics, log, access),
            forward_auth=self._router is None,
            date_header=date_header,
        )
        self._sampled = SampledMetrics(metrics, self._gateway, self._router)
        self._counting: asyncio.Task[None] | None = None
        self.extra_app = AdminApps(lambda: self._gateway.current_runtime)
        self.app: ASGIApp = self._gateway
        self.protocol: Callable[..., LimitedHttpProtocol] = LimitedHttpProtocol
        self.websockets: WebSockets = GuardedWebSocketProtocol
        if fast_lane:
            self.websockets = DetachableWebSocketProtocol
            in_force = self._router.current_proxies if self._router is not None else lambda: None
            self.protocol = partial(FastLaneProtocol, lane=FastLane(self._gateway, in_force, date_header))

    @property
    def max_message(self) -> int:
        """Size limit for WebSocket messages, in bytes."""
        return self._router.max_message if self._router is not None else WebSocketBounds().max_message

    async def startup(self) -> None:
        """Open the gateway."""
        await self._gateway.startup()
        self._counting = asyncio.ensure_future(keep_running("grant count", self._sampled.count_forever))

    async def shutdown(self) -> None:
        """Close the gateway, then the connections to the upstreams."""
        await cancel_and_wait(self._counting)
        await self._gateway.shutdown()
        if self._router is not None:
            await self._router.close()

    async def reload(self, config: Config) -> None:
        """Apply a configuration completely or not at all.

        If a connection pool cannot be created, the old configuration stays active.
        """
        fresh = self._router.build_proxies(config) if self._router is not None else {}
        await self._gateway.reload(config)
        if self._router is not None:
            self._router.switch(config, fresh)
        create_known_series(self._metrics, config)
        _log_unchanged_settings(self._log, self._config, config)

    async def check(self) -> Sequence[str]:
        """Return the reasons why the gateway cannot serve; empty when it is ready."""
        return await self._gateway.runtime.check()

    def notes(self) -> Sequence[str]:
        """Return what an operator should look at, for /readyz: missing keys, providers, banks."""
        runtime = self._gateway.runtime
        return [*runtime.encrypted_store.notes, *runtime.grants.notes, *runtime.data_apis.health.notes]


def _import_late_modules(config: Config) -> None:
    """Import the modules that are otherwise imported with the store and the first HTTP client.

    Workers are forked afterwards and share the memory of these modules, instead of importing them once each.

    Raises:
        OperatorError: See `open_store`.
    """
    open_store(config.sessions.store)
    importlib.import_module("httpcore")  # httpx imports it when a client is created


def keep_freed_memory() -> None:
    """Make glibc keep up to 4 MB of freed memory for the next bodies. Has no effect with other C libraries.

    uvloop reads up to 256 KB at a time. By default glibc returns such a block to the kernel as soon as it is freed.
    Each new block then costs a page fault for each 4 KB, which is a third of the CPU time of an upload.

    When glibc frees a block that it has mapped, it raises two limits (mallopt(3), M_MMAP_THRESHOLD): smaller blocks are
    no longer mapped, and freed memory of up to twice the block's size is kept. This block is never written to, so it
    takes no memory itself.
    """
    bytes(2 << 20)


def _require_shared_store(config: Config, workers: int) -> None:
    """Raise OperatorError if several workers would each have their own sessions and grants."""
    if workers > 1 and config.sessions.store.startswith("memory:"):
        raise OperatorError(
            f"sessions.store: memory:// serves one process only, but --workers {workers} starts several; "
            "use sqlite: or redis:, or --workers 1"
        )


def _uvicorn_fits(log: Log) -> bool:
    """Return whether the fast lane can use the installed uvicorn. If not, log why.

    The lane bypasses uvicorn's parser and keeps its state itself, so with another version it could fail in any way.
    """
    missing = missing_names()
    if is_tested(uvicorn.__version__) and not missing:
        return True
    log.warning("fast lane disabled", uvicorn=uvicorn.__version__, tested=TESTED, missing=missing)
    return False


def _announce(log: Log, config: Config, public: socket.socket, admin: socket.socket | None, workers: int) -> None:
    for warning in config.warnings:
        log.warning("configuration warning found", warning=warning)
    log.info(
        "gateway started",
        version=__version__,
        pid=os.getpid(),
        listen=bound(public),
        admin=bound(admin) if admin is not None else None,
        public_url=str(config.public_url),
        **{each.address: [str(origin) for origin in each.origins] for each in config.all_upstreams},
        environments=sorted(config.environments),
        connectors=sorted(config.connectors),
        store=describe(config.sessions.store),
        workers=workers,
    )


def _log_unchanged_settings(log: Log, before: Config, after: Config) -> None:
    for part in RESTART_KEYS:
        if getattr(before, part) != getattr(after, part):
            log.warning(f"{part} has changed; restart the gateway to apply it", setting=part)
