"""The access log: one line per request. Formatted by hand because it is the only log line on the request path."""

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
    """Writes the access log. Call it once per request, after the last byte of the response has been sent.

    Check `enabled` first if the arguments are expensive to compute. Only the path is logged, never a query or a header.
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
        """Log one request.

        Args:
            method: HTTP method.
            path: request path. A query, if there is one, is dropped.
            status: response status.
            seconds: time since the request began.
            rule: label of the access rule, or `-`.
            outcome: one of a fixed set of words (`passed`, `not-connected`, ...).
            request_id: ID of the request.
            sent: body bytes of the response, or None if unknown.
        """
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
