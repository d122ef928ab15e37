"""Structured logging (events with fields) through the standard library's loggers.

The gateway may run inside a host application, which decides where log entries go, as with any library. The sidecar owns
its process and writes the event and its fields separately (`observability.logs`). Other handlers get one readable line.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

FIELDS = "akoya_gateway_fields"
"""The attribute of a `logging.LogRecord` that holds the event and its fields."""


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that takes an event and fields: `logger(__name__).info("connected", connector="mikomo")`.

    It does nothing for entries below the level that the host has set.
    """
    made = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return cast("structlog.stdlib.BoundLogger", made)


class LoggedValues:
    """Limits a log event to the first `limit` different values of a field, once each. Clients choose the values."""

    __slots__ = ("_limit", "_values")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: set[str | bytes] = set()

    def add(self, value: str | bytes) -> bool:
        """Return True if the value is to be logged, and remember it."""
        if value in self._values or len(self._values) >= self._limit:
            return False
        self._values.add(value)
        return True


def _as_record(_: object, __: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """Return the arguments for the standard library's logger."""
    event, exc_info = fields.pop("event"), fields.pop("exc_info", None)
    text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
    return (text,), {"exc_info": exc_info, "extra": {FIELDS: (event, dict(fields))}}
