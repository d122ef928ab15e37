"""One line a request. Hand-formatted, because it is the only log line on the request path."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.observability.logs import LEVELS, Timestamp, Write
from akoya_gateway.observability.redaction import escape_controls, redact_text
from akoya_gateway.observability.stdout import StandardOutput


class AccessLog:
    """Call it once per request, when its last byte is sent. Look at `enabled` first where arguments cost something.

    It takes the path alone: no query, no header ever comes here.
    """

    def __init__(self, settings: Logging, write: Write | None = None, clock: Callable[[], float] = time.time) -> None:
        self.enabled = settings.access and LEVELS.get(settings.level, logging.INFO) <= logging.INFO
        self._write: Write = StandardOutput() if write is None else write
        self._stamp = Timestamp(clock)
        self._format = self._console if settings.format is LogFormat.CONSOLE else self._json

    def __call__(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        rule: str,
        outcome: str,
        request_id: str,
        sent: int | None = None,
    ) -> None:
        """`seconds` since the request began, `sent` bytes of body where they are known, `rule` the label of the access
        rule (`-`: none), `outcome` a word of a fixed set (`passed`, `not-connected`, ...)."""
        if self.enabled:
            path = redact_text(path.partition("?")[0], 2048)
            self._write(self._format(method, path, status, seconds, rule, outcome, request_id, sent))

    def _json(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        rule: str,
        outcome: str,
        request_id: str,
        sent: int | None,
    ) -> bytes:
        size = "" if sent is None else f',"bytes":{sent}'
        return (
            f'{{"timestamp":"{self._stamp()}","level":"info","event":"request","request_id":{quoted(request_id)},'
            f'"method":{quoted(method)},"path":{quoted(path)},"status":{status},"duration_ms":{seconds * 1000:.2f},'
            f'"rule":{quoted(rule)},"outcome":{quoted(outcome)}{size}}}\n'
        ).encode("ascii")

    def _console(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        rule: str,
        outcome: str,
        request_id: str,
        sent: int | None,
    ) -> bytes:
        size = "-" if sent is None else f"{sent}B"
        line = (
            f"{self._stamp()[11:23]} request {method} {path} {status} {seconds * 1000:.1f}ms {size} "
            f"{outcome} [{rule}] {request_id}"
        )
        return escape_controls(line).encode("utf-8", "backslashreplace") + b"\n"
