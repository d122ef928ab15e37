"""Opens the runtime of a gateway, replaces it on reload, and closes what is no longer used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config
from akoya_gateway.errors import OperatorError
from akoya_gateway.gateway.runtime import Observers, Runtime

RETIRE_AFTER = 30.0
"""Seconds for which a runtime replaced by a reload stays open for the requests that started with it."""


class GatewayStopped(OperatorError):
    """Raised for requests that arrive after shutdown; a runtime started then would never be closed."""

    code = "stopped"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("The gateway has been stopped.")


class ActiveRuntime:
    """The runtime in use, and those that a reload has replaced and requests still use."""

    def __init__(
        self, config: Config, observers: Observers, clock: Clock, on_change: Callable[[Runtime | None], None]
    ) -> None:
        """Remember the configuration; nothing is opened yet.

        Args:
            config: The configuration.
            observers: See `Runtime.open`.
            clock: Returns the current time.
            on_change: Called with each new runtime, and with None when there is none any more.
        """
        self._current: Runtime | None = None
        self._config = config
        self._observers = observers
        self._clock = clock
        self._on_change = on_change
        self._starting: asyncio.Task[Runtime] | None = None
        self._retiring_tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        """Set when a shutdown begins, until the next start."""

    async def open(self) -> Runtime:
        """Return the runtime in use, opening it if necessary.

        Raises what `Runtime.open` raises, and `GatewayStopped`.
        """
        if self._current is not None:
            return self._current
        if self._stopping.is_set():
            raise GatewayStopped
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        # Shielded: the first client may disconnect while other requests wait for the same start.
        return await asyncio.shield(self._starting)

    def allow_start(self) -> None:
        """Let the runtime be opened again after a shutdown."""
        if self._stopping.is_set():
            self._stopping = asyncio.Event()

    def refuse_start(self) -> None:
        """Begin a shutdown: from now on nothing is opened, and replaced runtimes do not wait any longer."""
        self._stopping.set()

    async def close(self) -> None:
        """Close the runtimes that a reload replaced, and the one in use. Call `refuse_start` first.

        They are closed at the same time, so that a stop shortly after a reload does not wait twice for late responses.
        """
        if self._starting is not None:
            await asyncio.wait({self._starting})
        runtime = self._current
        if runtime is None:
            await asyncio.gather(*self._retiring_tasks, return_exceptions=True)
            return
        self._use(None)
        closing = asyncio.create_task(runtime.close(keep_store=True))
        try:
            await asyncio.gather(*self._retiring_tasks, closing, return_exceptions=True)
            closing.result()
        finally:
            await runtime.store.close()  # Last, because a replaced runtime may write to the same store.

    async def replace(self, config: Config) -> None:
        """Switch to another configuration. Requests in progress finish with the runtime they started with.

        Raises what `Runtime.open` raises, and `GatewayStopped`. The old runtime stays active then.
        """
        old = await self.open()
        same_store = config.sessions.store == old.config.sessions.store
        runtime = await Runtime.open(config, self._observers, self._clock, old.store if same_store else None)
        if self._stopping.is_set():
            # A shutdown began in the meantime and will not close this runtime.
            await runtime.close(keep_store=same_store)
            raise GatewayStopped
        self._config = config
        self._use(runtime)
        task = asyncio.create_task(self._retire(old, same_store, tuple(self._retiring_tasks)))
        self._retiring_tasks.add(task)
        task.add_done_callback(self._retiring_tasks.discard)

    async def _start(self) -> Runtime:
        try:
            runtime = await Runtime.open(self._config, self._observers, self._clock)
            self._use(runtime)
            return runtime
        finally:
            self._starting = None

    def _use(self, runtime: Runtime | None) -> None:
        self._current = runtime
        self._on_change(runtime)

    async def _retire(self, runtime: Runtime, keep_store: bool, before: tuple[asyncio.Task[None], ...]) -> None:
        """Close a replaced runtime after `RETIRE_AFTER` seconds, or when the gateway stops.

        `before` are the tasks of runtimes replaced earlier. They may still write to the store that this one closes, so
        they finish first.
        """
        await runtime.grants.stop_background_work()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_AFTER):
                await self._stopping.wait()
        if before:
            await asyncio.wait(before)
        await runtime.close(keep_store=keep_store)
