"""Log lines of what may run inside somebody else's process: events with fields, by the standard library's loggers.

The host says where they go, as with any library. The sidecar, which owns its process, prints event and fields as they
were given (`observability.logs`); other handlers get one readable line.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

FIELDS = "akoya_gateway_fields"
"""The attribute of a `logging.LogRecord` that holds the event and its fields."""


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """`logger(__name__).info("connected", connector="mikomo")`. Does nothing below the level that the host set."""
    made = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return cast("structlog.stdlib.BoundLogger", made)


def _as_record(_: object, __: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """What the standard library's logger is called with."""
    event, exc_info = fields.pop("event"), fields.pop("exc_info", None)
    text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
    return (text,), {"exc_info": exc_info, "extra": {FIELDS: (event, dict(fields))}}
