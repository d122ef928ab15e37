"""The access log: one line per request. Formatted by hand because it is the only log line on the request path.

A line is gathered in parts, which are joined when the lines of many requests are written. Only the duration is
formatted for each line. The time is formatted once per millisecond. Path, method, status, rule and outcome are
redacted, escaped and formatted once; the result is cached when it is needed a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from typing import Protocol

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.observability.logs import LEVELS, Timestamp
from akoya_gateway.observability.redaction import escape_controls, redact_text

MAX_ENTRIES = 4096
"""Maximum number of cached results. The cache is cleared when it is full."""
MAX_KEY_BYTES = 512
"""Results are not cached if path and method have this size or more."""
MAX_TEXT_CHARACTERS = 2048
"""Maximum characters of a method or a path in a line; the rest is truncated."""

Gather = Callable[[tuple[bytes, ...]], object]
"""Takes the parts of one complete line, including its newline. Must not raise."""
_Key = tuple[bytes, str, int, str, str]
"""Path as received, method, status, rule and outcome."""


class LoggedRequest(Protocol):
    """A request, as the access log needs it."""

    def logged_fields(self) -> tuple[bytes, str, bytes]:
        """Return the path as received, the method and the request ID."""


class AccessLog:
    """Writes the access log. Call it once per request, when the response starts.

    No field of a line can contain a secret: method and path are redacted before they are cached, queries and headers
    are not logged, rule and outcome come from the configuration and the code, and a request ID is the gateway's own or
    that of a trusted proxy.
    """

    def __init__(self, settings: Logging, gather: Gather) -> None:
        """Initialize the log. `gather` writes a line, as `StandardOutput.gather` does."""
        self.enabled = settings.access and LEVELS.get(settings.level, logging.INFO) <= logging.INFO
        self._gather = gather if self.enabled else _discard
        self._is_console = settings.format is LogFormat.CONSOLE
        start, self._digits = (_console_start, b"%.1f") if self._is_console else (_json_start, b"%.2f")
        self._start = Timestamp(start).of
        self._texts: BoundedCache[_Key, tuple[bytes, bytes]] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True)
        """The text of a line before and after the duration, without the time and the request ID."""

    def __call__(self, request: LoggedRequest, status: int, rule: str, outcome: str, began: float, now: float) -> None:
        """Log one request.

        Args:
            request: the request.
            status: response status.
            rule: label of the access rule, or `-`.
            outcome: one of a fixed set of words (`passed`, `not-connected`, ...).
            began: Unix time at which the request began, in seconds.
            now: Unix time at which its response started, in seconds.
        """
        raw_path, method, request_id = request.logged_fields()
        key = raw_path, method, status, rule, outcome
        before, after = self._texts.get(key) or self._add_texts(key)
        duration = self._digits % ((now - began) * 1000)
        if not request_id.isalnum():
            request_id = self._escaped(request_id)
        if self._is_console:
            self._gather((self._start(now), before, duration, after, request_id, b"\n"))
        else:
            self._gather((self._start(now), request_id, before, duration, after))

    def _add_texts(self, key: _Key) -> tuple[bytes, bytes]:
        raw_path, method, status, rule, outcome = key
        path = redact_text(raw_path.decode("latin-1").partition("?")[0], MAX_TEXT_CHARACTERS)
        texts = _console_texts if self._is_console else _json_texts
        before, after = texts(redact_text(method, MAX_TEXT_CHARACTERS), path, status, rule, outcome)
        return self._texts.store(key, (before.encode(), after.encode()), len(raw_path) + len(method))

    def _escaped(self, request_id: bytes) -> bytes:
        text = request_id.decode("utf-8", "backslashreplace")
        return escape_controls(text).encode() if self._is_console else quoted(text)[1:-1].encode()


def _discard(parts: tuple[bytes, ...]) -> None:
    """Write nothing: the log is off."""


def _json_start(timestamp: str) -> bytes:
    return f'{{"timestamp":"{timestamp}","level":"info","event":"request","request_id":"'.encode()


def _json_texts(method: str, path: str, status: int, rule: str, outcome: str) -> tuple[str, str]:
    return (
        f'","method":{quoted(method)},"path":{quoted(path)},"status":{status},"duration_ms":',
        f',"rule":{quoted(rule)},"outcome":{quoted(outcome)}}}\n',
    )


def _console_start(timestamp: str) -> bytes:
    return timestamp[11:23].encode()


def _console_texts(method: str, path: str, status: int, rule: str, outcome: str) -> tuple[str, str]:
    return escape_controls(f" request {method} {path} {status} "), escape_controls(f"ms - {outcome} [{rule}] ")
