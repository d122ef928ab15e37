"""The access log: one line per request. Formatted by hand because it is the only log line on the request path.

The lines of similar requests differ in the time, the duration and the request ID. The rest is formatted once for each
combination of method, path, status, rule and outcome, and cached. Redaction and escaping are a part of that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple, Protocol

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.observability.logs import LEVELS, Timestamp, Write
from akoya_gateway.observability.redaction import escape_controls, redact_text

MAX_ENTRIES = 2048
"""Maximum number of cached formats. The cache is cleared when it is full."""
MAX_KEY_BYTES = 512
"""Formats for paths of this size or more are not cached."""
MAX_TEXT_CHARACTERS = 2048
"""Maximum characters of a method or a path in a line; the rest is truncated."""


class LoggedRequest(Protocol):
    """A request, as the access log needs it. A property may compute its value, which is wasted if nothing reads it."""

    @property
    def method(self) -> str: ...

    @property
    def raw_path(self) -> bytes: ...

    @property
    def request_id(self) -> str: ...


class LoggedResponse(NamedTuple):
    """The fields of a line that similar requests share.

    `rule` is the label of the access rule, or `-`. `outcome` is one of a fixed set of words (`passed`,
    `not-connected`, ...).
    """

    method: str
    raw_path: bytes
    status: int
    rule: str
    outcome: str


class AccessLog:
    """Writes the access log. Call it once per request, when the response starts.

    No field of a line can contain a secret: method and path are redacted when their format is made, queries and headers
    are not logged, rule and outcome come from the configuration and the code, and a request ID is the gateway's own or
    that of a trusted proxy.
    """

    def __init__(self, settings: Logging, write: Write, clock: Callable[[], float] = time.time) -> None:
        """Initialize the log. `write` takes one line including its newline, such as `StandardOutput.gather`."""
        self.enabled = settings.access and LEVELS.get(settings.level, logging.INFO) <= logging.INFO
        self._write = write
        self._stamp = Timestamp(clock)
        is_console = settings.format is LogFormat.CONSOLE
        self._line, self._format = (_console_line, _console_format) if is_console else (_json_line, _json_format)
        self._formats: BoundedCache[tuple[str, bytes, int, str, str], tuple[str, str]] = BoundedCache(
            MAX_ENTRIES, MAX_KEY_BYTES
        )

    def __call__(self, request: LoggedRequest, status: int, rule: str, outcome: str, seconds: float) -> None:
        """Log one request. See `LoggedResponse`; `seconds` is the time since the request began."""
        if self.enabled:
            # A plain tuple: it equals the `LoggedResponse` and takes a fifth of the time to create.
            key = request.method, request.raw_path, status, rule, outcome
            parts = self._formats.get(key) or self._make_format(LoggedResponse(*key))
            self._write(self._line(parts, self._stamp(), request.request_id, seconds * 1000))

    def _make_format(self, response: LoggedResponse) -> tuple[str, str]:
        method = redact_text(response.method, MAX_TEXT_CHARACTERS)
        path = redact_text(response.raw_path.decode("latin-1").partition("?")[0], MAX_TEXT_CHARACTERS)
        return self._formats.store(response, self._format(method, path, response), len(path) + len(method))


def _json_format(method: str, path: str, response: LoggedResponse) -> tuple[str, str]:
    """Return the text between the request ID and the duration, and the text after it."""
    return (
        f',"method":{quoted(method)},"path":{quoted(path)},"status":{response.status},"duration_ms":',
        f',"rule":{quoted(response.rule)},"outcome":{quoted(response.outcome)}}}\n',
    )


def _json_line(parts: tuple[str, str], stamp: str, request_id: str, milliseconds: float) -> bytes:
    return (
        f'{{"timestamp":"{stamp}","level":"info","event":"request","request_id":{quoted(request_id)}'
        f"{parts[0]}{milliseconds:.2f}{parts[1]}"
    ).encode("ascii")


def _console_format(method: str, path: str, response: LoggedResponse) -> tuple[str, str]:
    """Return the text between the time and the duration, and the text before the request ID."""
    return (
        escape_controls(f" request {method} {path} {response.status} "),
        escape_controls(f"ms - {response.outcome} [{response.rule}] "),
    )


def _console_line(parts: tuple[str, str], stamp: str, request_id: str, milliseconds: float) -> bytes:
    end = request_id if request_id.isprintable() else escape_controls(request_id)
    return f"{stamp[11:23]}{parts[0]}{milliseconds:.1f}{parts[1]}{end}\n".encode("utf-8", "backslashreplace")
