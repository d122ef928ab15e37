"""Tests that a failed reload is logged and counted, and does not affect the next one."""

from __future__ import annotations

import json
import logging

import pytest

from akoya_gateway.config.model import Config, Logging
from akoya_gateway.errors import OperatorError, StoreUnavailable
from akoya_gateway.observability.logs import open_log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.server.config_reloader import ConfigReloader


class Reloads:
    """A reloader whose `load` and `apply` raise the given exceptions."""

    def __init__(self, load: Exception | None, apply: Exception | None, level: int) -> None:
        self._faults = (load, apply)
        self._lines: list[bytes] = []
        log = open_log(Logging(), self._lines.append)
        self.reloader = ConfigReloader(self._load, self._apply, log, Metrics("test"), level=level)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._lines]

    def _load(self) -> Config:
        if self._faults[0] is not None:
            raise self._faults[0]
        return None  # type: ignore[return-value]

    async def _apply(self, config: Config) -> None:
        if self._faults[1] is not None:
            raise self._faults[1]


STAYS = "new configuration not applied"
FAILED = "configuration reload failed"


@pytest.mark.parametrize(
    ("load", "apply", "level", "output"),
    [
        (OperatorError("it takes a restart"), None, logging.ERROR, [STAYS]),
        (OperatorError("it takes a restart"), None, logging.DEBUG, []),
        (None, StoreUnavailable("away"), logging.DEBUG, [STAYS]),
        (KeyError("ours"), None, logging.DEBUG, [FAILED]),
        (None, KeyError("ours"), logging.DEBUG, [FAILED]),
    ],
    ids=["not_at_run_time", "which_the_supervisor_has_said", "no_store", "fault_of_ours", "fault_of_ours_later"],
)
async def test_exception_in_a_reload_never_ends_its_caller(
    load: Exception | None, apply: Exception | None, level: int, output: list[str]
) -> None:
    reloads = Reloads(load, apply, level)
    assert not await reloads.reloader.reload()
    assert reloads.events == output
