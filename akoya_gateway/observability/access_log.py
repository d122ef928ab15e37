"""The access log: one line per request. Formatted by hand because it is the only log line on the request path.

Only the time, the duration and the request ID are formatted for each line. The path, and what a line has around it for
a method, status, rule and outcome, are redacted, escaped and formatted once and then cached.
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

MAX_ENTRIES = 4096
"""Maximum number of cached paths, and of other cached parts. A cache is cleared when it is full."""
MAX_KEY_BYTES = 512
"""Paths of this size or more are not cached."""
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


class LineParts(NamedTuple):
    """The parts of a line that depend on method, status, rule and outcome only."""

    before_path: str
    before_duration: str
    after_duration: str


class AccessLog:
    """Writes the access log. Call it once per request, when the response starts.

    No field of a line can contain a secret: method and path are redacted before they are cached, queries and headers
    are not logged, rule and outcome come from the configuration and the code, and a request ID is the gateway's own or
    that of a trusted proxy.
    """

    def __init__(self, settings: Logging, write: Write, clock: Callable[[], float] = time.time) -> None:
        """Initialize the log. `write` takes one line including its newline, such as `StandardOutput.gather`."""
        self.enabled = settings.access and LEVELS.get(settings.level, logging.INFO) <= logging.INFO
        self._write = write
        self._stamp = Timestamp(clock)
        is_console = settings.format is LogFormat.CONSOLE
        self._line, self._escape, self._format = (
            (_console_line, escape_controls, _console_parts) if is_console else (_json_line, quoted, _json_parts)
        )
        self._paths: BoundedCache[bytes, str] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES)
        self._parts: BoundedCache[tuple[str, int, str, str], LineParts] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES)

    def __call__(self, request: LoggedRequest, status: int, rule: str, outcome: str, seconds: float) -> None:
        """Log one request.

        Args:
            request: the request.
            status: response status.
            rule: label of the access rule, or `-`.
            outcome: one of a fixed set of words (`passed`, `not-connected`, ...).
            seconds: time since the request began.
        """
        if self.enabled:
            raw_path = request.raw_path
            path = self._paths.get(raw_path) or self._add_path(raw_path)
            key = request.method, status, rule, outcome
            parts = self._parts.get(key) or self._add_parts(key)
            self._write(self._line(parts, self._stamp(), request.request_id, path, seconds * 1000))

    def _add_path(self, raw_path: bytes) -> str:
        path = redact_text(raw_path.decode("latin-1").partition("?")[0], MAX_TEXT_CHARACTERS)
        return self._paths.store(raw_path, self._escape(path), len(raw_path))

    def _add_parts(self, key: tuple[str, int, str, str]) -> LineParts:
        method = redact_text(key[0], MAX_TEXT_CHARACTERS)
        return self._parts.store(key, self._format(method, *key[1:]), len(key[0]))


def _json_parts(method: str, status: int, rule: str, outcome: str) -> LineParts:
    return LineParts(
        f',"method":{quoted(method)},"path":',
        f',"status":{status},"duration_ms":',
        f',"rule":{quoted(rule)},"outcome":{quoted(outcome)}}}\n',
    )


def _json_line(parts: LineParts, stamp: str, request_id: str, path: str, milliseconds: float) -> bytes:
    before_path, before_duration, after = parts
    return (
        f'{{"timestamp":"{stamp}","level":"info","event":"request","request_id":{quoted(request_id)}'
        f"{before_path}{path}{before_duration}{milliseconds:.2f}{after}"
    ).encode()


def _console_parts(method: str, status: int, rule: str, outcome: str) -> LineParts:
    return LineParts(
        escape_controls(f" request {method} "),
        f" {status} ",
        escape_controls(f"ms - {outcome} [{rule}] "),
    )


def _console_line(parts: LineParts, stamp: str, request_id: str, path: str, milliseconds: float) -> bytes:
    before_path, before_duration, after = parts
    end = request_id if request_id.isprintable() else escape_controls(request_id)
    return f"{stamp[11:23]}{before_path}{path}{before_duration}{milliseconds:.1f}{after}{end}\n".encode()
