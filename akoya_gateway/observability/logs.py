"""Structured logging: one redacted line per event on standard output.

`open_log` returns a logger that is passed to the code that logs. It configures nothing globally, so the middleware does
not change the logging of its host application. The sidecar owns its process, so it also redirects the loggers of
structlog and of the standard library (uvicorn, httpx, asyncio, `akoya_gateway.log`): `configure_process_logging`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import structlog
from structlog.typing import EventDict

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.log import FIELDS
from akoya_gateway.observability.colour import no_colour
from akoya_gateway.observability.redaction import MAX_TRACE_CHARACTERS, escape_controls, redact_event, redact_text
from akoya_gateway.observability.stdout import StandardOutput

Log = structlog.typing.FilteringBoundLogger
Write = Callable[[bytes], object]
"""Writes one complete line, including its newline. Must not raise."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_Text = TypeVar("_Text")
_FIRST = ("timestamp", "level", "event", "request_id")
_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}


class Timestamp(Generic[_Text]):
    """Formats times as RFC 3339 in UTC with milliseconds. The result for the last millisecond is cached.

    `finish` is called once for each millisecond, with a text such as `2026-11-30T12:00:01.234Z`.
    """

    def __init__(self, finish: Callable[[str], _Text]) -> None:
        self._finish = finish
        self._second = -1
        self._text_of_second = ""
        self._start = self._end = 0.0
        """The millisecond for which `_text` is valid, in seconds."""
        self._text: _Text

    def of(self, now: float) -> _Text:
        """Return what `finish` returned for the millisecond of `now`, a Unix time in seconds."""
        return self._text if self._start <= now < self._end else self._format(now)

    def _format(self, now: float) -> _Text:
        millisecond = int(now * 1000)
        second, fraction = divmod(millisecond, 1000)
        if second != self._second:
            self._second, self._text_of_second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._text = self._finish(f"{self._text_of_second}.{fraction:03d}Z")
        self._start, self._end = millisecond / 1000, (millisecond + 1) / 1000
        return self._text


class Redaction:
    """structlog processor, the last one before the renderer, so that no secret of another processor remains.

    It puts the fields in the order of output: timestamp, level, event, request_id, the others, exception.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timestamp = Timestamp(str)

    def __call__(self, _: object, __: str, event: EventDict) -> dict[str, Any]:
        trace = event.pop("exception", None)
        event.pop("stack_info", None)
        fields = {**redact_event(event), "timestamp": self._timestamp.of(self._clock())}
        ordered = {name: fields.pop(name) for name in _FIRST if name in fields}
        ordered.update(fields)
        if trace is not None:
            ordered["exception"] = redact_text(str(trace), MAX_TRACE_CHARACTERS)
        return ordered


class ConsoleLine:
    """structlog renderer for a terminal: `12:00:01.234 warning  store unavailable  store=sqlite:x.db`.

    `structlog.dev.ConsoleRenderer` escapes no control characters in names, messages and tracebacks.
    """

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _: object, __: str, fields: EventDict) -> str:
        trace = fields.pop("exception", None)
        level = fields.pop("level")
        head = f"{fields.pop('timestamp')[11:23]} {level:7}"
        message = escape_controls(str(fields.pop("event")))
        rest = " ".join(f"{escape_controls(name)}={_plain(value)}" for name, value in fields.items())
        if self._colour:
            head = f"{_COLOURS.get(level, '')}{head}\x1b[0m"
        line = f"{head} {message}" + (f"  {rest}" if rest else "")
        if trace is not None:
            line += "".join(f"\n    {escape_controls(each)}" for each in trace.splitlines())
        return line


def open_log(settings: Logging, write: Write | None = None, clock: Callable[[], float] = time.time) -> Log:
    """Return a logger that writes to standard output (or `write`). Methods below `settings.level` are no-ops."""
    lines, options = _build_logger(settings, write, clock)
    # Bind once: structlog's lazy proxy would build the logger at every call.
    return cast("Log", structlog.wrap_logger(lines, **options).bind())


def configure_process_logging(
    settings: Logging, write: Write | None = None, clock: Callable[[], float] = time.time
) -> Log:
    """Return a logger as `open_log` does, and redirect all other logging of this process to it.

    This affects the loggers of structlog and of the standard library.
    """
    lines, options = _build_logger(settings, write, clock)
    structlog.configure(logger_factory=lambda *_: lines, cache_logger_on_first_use=True, **options)
    log = cast("Log", structlog.wrap_logger(lines, **options).bind())
    route_standard_logging(log, settings)
    return log


def route_standard_logging(log: Log, settings: Logging) -> None:
    """Redirect the loggers of the standard library to `log`.

    uvicorn's access log is turned off: the gateway has its own, which contains no queries. The INFO messages of uvicorn
    and httpx, some of which contain URLs, are off unless the level is DEBUG.
    """
    level = LEVELS.get(settings.level, logging.INFO)
    root = logging.getLogger()
    root.handlers[:] = [_StructlogHandler(log)]
    root.setLevel(level)
    # Set explicit levels: uvicorn reads `logger.level` and treats 0 as "trace".
    chatty = level if level <= logging.DEBUG else max(level, logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "httpx", "httpcore", "websockets", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(chatty)
    logging.getLogger("uvicorn.error").addFilter(_level_for_uvicorn_error)
    access = logging.getLogger("uvicorn.access")
    access.handlers[:] = []
    access.propagate = False
    access.setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


def _level_for_uvicorn_error(record: logging.LogRecord) -> bool:
    """Log invalid UTF-8 from a WebSocket client at DEBUG and without a traceback.

    The client is notified with close code 1007 (RFC 6455 section 8.1). uvicorn logs an error with a traceback, but only
    the client can do anything about it.
    """
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
    return True


def _build_logger(settings: Logging, write: Write | None, clock: Callable[[], float]) -> tuple[_Lines, dict[str, Any]]:
    """Return the object that writes lines, and the options of `structlog.wrap_logger` and `structlog.configure`."""
    write = StandardOutput() if write is None else write
    render: Any = structlog.processors.JSONRenderer(separators=(",", ":"), default=str)
    if settings.format is LogFormat.CONSOLE:
        render = ConsoleLine(colour=isinstance(write, StandardOutput) and sys.stdout.isatty() and not no_colour())
    return _Lines(write), {
        "processors": [
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,  # without local variables, which may contain secrets
            Redaction(clock),
            render,
        ],
        "wrapper_class": structlog.make_filtering_bound_logger(LEVELS.get(settings.level, logging.INFO)),
        "context_class": dict,
    }


class _Lines:
    """The object that structlog calls the logger. It writes finished lines."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line.encode("utf-8", "backslashreplace") + b"\n")

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _StructlogHandler(logging.Handler):
    """Log handler that turns standard library records, including their `extra`, into structlog events."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event, extra = self._fields(record)
            if record.exc_info and record.exc_info[1] is not None:
                extra["exc_info"] = record.exc_info[1]
            say = {
                logging.DEBUG: self._log.debug,
                logging.INFO: self._log.info,
                logging.WARNING: self._log.warning,
                logging.CRITICAL: self._log.critical,
            }
            # Pass the message as the event without arguments, so that its percent signs are not interpreted.
            say.get(record.levelno - record.levelno % 10, self._log.error)(event, **extra)
        except Exception:
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
        injected = getattr(record, FIELDS, None)
        if injected is not None:
            return injected[0], dict(injected[1])
        extra = {name: value for name, value in vars(record).items() if name not in self._STANDARD}
        extra.pop("event", None)
        return record.getMessage().strip(), {"logger": record.name, **extra}

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        self._log.error("log record rendering failed", logger=record.name)


def _plain(value: object) -> str:
    if isinstance(value, str) and value and not any(each in value for each in ' "='):
        return escape_controls(value)
    return escape_controls(json.dumps(value, ensure_ascii=False, default=str))
