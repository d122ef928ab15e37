"""A new configuration takes over as a whole, or not at all: the last good one goes on."""

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
    """`load` reads and judges the file (in a thread), `apply` swaps. Faults are said at `level`: a supervisor says
    them once for all its workers, which then keep quiet."""

    def __init__(
        self,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None]],
        log: Log,
        metrics: Metrics,
        *,
        level: int = logging.ERROR,
    ) -> None:
        self._load = load
        self._apply = apply
        self._log = log
        self._metrics = metrics
        self._level = level
        self._lock = asyncio.Lock()

    async def reload(self) -> bool:
        """True: the new configuration is in force. One at a time, in the order they were asked for."""
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
        except Exception:  # A fault of ours must not end the watch over the files.
            self._log.exception("configuration reload failed")
            return False
        self._log.info("configuration reloaded", file=str(config.source))
        return True


def log_diagnostics(log: Log, error: ConfigurationError, level: int = logging.ERROR) -> None:
    """One line a fault, as `akoya-gateway check` prints them."""
    for diagnostic in error.diagnostics:
        log.log(level, "configuration error found", fault=str(diagnostic))
    log.log(level, "new configuration rejected", faults=len(error.diagnostics))
