"""What this package uses of uvicorn beyond its documented API, and a check that the installed uvicorn has it.

uvicorn may change these names in any release. The contract test (`tests/server/test_uvicorn_contract.py`) fails when
one of them is gone, and when the package uses one that is not listed here.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

OLDEST, BEYOND = (0, 53, 0), (0, 55, 0)
"""The oldest version that the tests pass with, and the first one after those."""

TESTED = ",".join(f"{sign}{'.'.join(map(str, version))}" for sign, version in ((">=", OLDEST), ("<", BEYOND)))
"""The same as in pyproject.toml."""

HTTP_PROTOCOL = (
    "_should_upgrade", "_start_asgi_task", "_unset_keepalive_if_required", "access_log", "access_logger", "app",
    "app_state", "client", "config", "connection_lost", "connection_made", "connections", "cycle", "data_received",
    "expect_100_continue", "flow", "headers", "logger", "loop", "on_body", "on_header", "on_headers_complete",
    "on_message_begin", "on_message_complete", "on_response_complete", "on_url", "parser", "pause_writing",
    "pipeline", "resume_writing", "scheme", "scope", "server_state", "shutdown", "tasks", "timeout_keep_alive",
    "timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "ws_protocol_class",
)  # fmt: skip
"""Attributes and methods of uvicorn's HTTP protocol. `on_message_begin` also sets `url`."""

CYCLE_PARAMETERS = (
    "scope", "transport", "flow", "logger", "access_logger", "access_log", "default_headers", "message_event",
    "expect_100_continue", "keep_alive", "on_response",
)  # fmt: skip
CYCLE = (
    "body", "chunked_encoding", "disconnected", "expected_content_length", "keep_alive", "message_event",
    "more_body", "on_response", "response_complete", "response_started", "send", "transport",
    "waiting_for_100_continue",
)  # fmt: skip
"""Attributes and methods of the object that runs the app for one request."""

WEBSOCKET_PROTOCOL = (
    "config", "conn", "connection_lost", "data_received", "disconnected", "handle_connect", "handshake_complete",
    "handshake_initiated", "loop", "receive", "run_asgi", "send", "shutdown", "stop_keepalive", "tasks",
    "transport",
)  # fmt: skip
"""Attributes and methods of uvicorn's WebSocket protocol. `handle_connect` also sets `scope` and `response`."""


def is_tested(version: str) -> bool:
    """Return whether the tests pass with this version of uvicorn."""
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return numbers is not None and OLDEST <= tuple(int(number or 0) for number in numbers.groups()) < BEYOND


def missing_names() -> list[str]:
    """Return the names listed here that the installed uvicorn does not have, such as `HttpToolsProtocol.cycle`."""
    try:
        instances = _instances()
    except Exception as error:
        # Its constructors have other parameters.
        return [f"{type(error).__name__}: {error}"]
    return [
        f"{type(instance).__name__}.{name}"
        for instance, names in instances
        for name in names
        if not hasattr(instance, name)
    ]


def abort_cycle(cycle: RequestResponseCycle) -> None:
    """Close the connection of a response that cannot be completed."""
    # Otherwise uvicorn logs that the app has returned without completing its response.
    cycle.disconnected = True
    cycle.transport.close()


def _instances() -> list[tuple[object, tuple[str, ...]]]:
    """Create one object of each class, because many of the attributes exist on instances only."""
    config = uvicorn.Config(
        cast("Any", _app), http=HttpToolsProtocol, ws=WebSocketsSansIOProtocol, interface="asgi3", log_config=None
    )
    config.load()
    # The constructors only store the loop, and there is none yet when the gateway starts.
    loop = cast("asyncio.AbstractEventLoop", object())
    cycle = RequestResponseCycle(**dict.fromkeys(CYCLE_PARAMETERS, cast("Any", None)))
    return [
        (HttpToolsProtocol(config, ServerState(), {}, loop), HTTP_PROTOCOL),
        (cycle, CYCLE),
        (WebSocketsSansIOProtocol(config, ServerState(), {}, loop), WEBSOCKET_PROTOCOL),
    ]


async def _app(scope: object, receive: object, send: object) -> None:
    """Never called."""
