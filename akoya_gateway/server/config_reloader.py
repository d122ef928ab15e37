"""Reloads the configuration as a whole. If the new one is invalid, the last valid one stays in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from akoya_gateway.config.diagnostics import ConfigurationError
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.metrics import Metrics


class ConfigReloader:
    """Load, validate and apply a new configuration, one reload at a time."""

    def __init__(
        self,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None]],
        log: Log,
        metrics: Metrics,
        *,
        level: int = logging.ERROR,
    ) -> None:
        """Store the two steps of a reload.

        Args:
            load: reads and validates the file. Runs in a thread.
            apply: replaces the running configuration.
            log: receives the result of each reload.
            metrics: counts reloads.
            level: log level of configuration errors. A supervisor logs them once for all its workers, which then use
                a level that is not printed.
        """
        self._load = load
        self._apply = apply
        self._log = log
        self._metrics = metrics
        self._level = level
        self._lock = asyncio.Lock()

    async def reload(self) -> bool:
        """Return True if the new configuration is in force. Concurrent calls run one at a time, in order."""
        async with self._lock:
            ok = await self._reload()
            self._metrics.reloaded(ok)
            return ok

    async def _reload(self) -> bool:
        level = self._level
        try:
            config = await asyncio.to_thread(self._load)
            level = logging.ERROR
            await self._apply(config)
        except ConfigurationError as error:
            log_diagnostics(self._log, error, level)
            return False
        except (GatewayError, OSError, ValueError) as error:
            self._log.log(level, "new configuration not applied", reason=str(error))
            return False
        except Exception:  # A bug here must not stop the file watcher.
            self._log.exception("configuration reload failed")
            return False
        self._log.info("configuration reloaded", file=str(config.source))
        return True


def log_diagnostics(log: Log, error: ConfigurationError, level: int = logging.ERROR) -> None:
    """Log one event per configuration error, with the text that `akoya-gateway check` prints."""
    for diagnostic in error.diagnostics:
        log.log(level, "configuration error found", fault=str(diagnostic))
    log.log(level, "new configuration rejected", faults=len(error.diagnostics))
