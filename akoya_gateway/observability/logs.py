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
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, cast

import structlog

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.log import FIELDS
from akoya_gateway.observability.redaction import MAX_TRACE_CHARACTERS, escape_controls, redact_event, redact_text
from akoya_gateway.observability.stdout import StandardOutput, no_colour

Log = structlog.typing.FilteringBoundLogger
Write = Callable[[bytes], object]
"""Writes one complete line, including its newline. Must not raise."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FIRST = ("timestamp", "level", "event", "request_id")
_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}


class Timestamp:
    """Format the current time as RFC 3339 in UTC with milliseconds. The text of the current millisecond is cached."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._millisecond = self._second = -1
        self._text = self._text_of_second = ""

    def __call__(self) -> str:
        millisecond = int(self._clock() * 1000)
        if millisecond != self._millisecond:
            second, fraction = divmod(millisecond, 1000)
            if second != self._second:
                self._second, self._text_of_second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._millisecond, self._text = millisecond, f"{self._text_of_second}.{fraction:03d}Z"
        return self._text


class JsonLine:
    """Final structlog processor that renders an event as one line of JSON."""

    def __init__(self, stamp: Callable[[], str]) -> None:
        self._stamp = stamp

    def __call__(self, _: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        return json.dumps(fields_of(event, level, self._stamp()), separators=(",", ":"), default=str).encode()


class ConsoleLine:
    """Final structlog processor for a terminal: `12:00:01.234 warning  store unavailable  store=sqlite:x.db`."""

    def __init__(self, stamp: Callable[[], str], colour: bool) -> None:
        self._stamp = stamp
        self._colour = colour

    def __call__(self, _: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        fields = fields_of(event, level, self._stamp())
        trace = fields.pop("exception", None)
        head = f"{fields.pop('timestamp')[11:23]} {fields.pop('level'):7}"
        message = escape_controls(str(fields.pop("event")))
        rest = " ".join(f"{escape_controls(name)}={_plain(value)}" for name, value in fields.items())
        if self._colour:
            head = f"{_COLOURS.get(level, '')}{head}\x1b[0m"
        line = f"{head} {message}" + (f"  {rest}" if rest else "")
        if trace is not None:
            line += "".join(f"\n    {escape_controls(each)}" for each in str(trace).splitlines())
        return line.encode("utf-8", "backslashreplace")


def fields_of(event: MutableMapping[str, Any], level: str, stamp: str) -> dict[str, Any]:
    """Return the redacted fields in the order of output: timestamp, level, event, request_id, then the others."""
    trace = _trace(event.pop("exc_info", None))
    event.pop("stack_info", None)
    clean = redact_event(event)
    clean["timestamp"] = stamp
    clean["level"] = {"warn": "warning", "exception": "error"}.get(level, level)
    ordered = {name: clean.pop(name) for name in _FIRST if name in clean}
    ordered.update(clean)
    if trace:
        ordered["exception"] = redact_text(trace, MAX_TRACE_CHARACTERS)
    return ordered


def open_log(settings: Logging, write: Write | None = None, clock: Callable[[], float] = time.time) -> Log:
    """Return a logger that writes to standard output (or `write`). Methods below `settings.level` are no-ops."""
    wrapper, processors, lines = _build_logger(settings, write, clock)
    logger = structlog.wrap_logger(lines, processors=processors, wrapper_class=wrapper, context_class=dict)
    # Bind once: structlog's lazy proxy would build the logger at every call.
    return cast("Log", logger.bind())


def configure_process_logging(
    settings: Logging, write: Write | None = None, clock: Callable[[], float] = time.time
) -> Log:
    """Return a logger as `open_log` does, and redirect all other logging of this process to it.

    This affects the loggers of structlog and of the standard library.
    """
    wrapper, processors, lines = _build_logger(settings, write, clock)
    structlog.configure(
        processors=processors,
        wrapper_class=wrapper,
        context_class=dict,
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    log = cast("Log", structlog.wrap_logger(lines, processors=processors, wrapper_class=wrapper).bind())
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


def _build_logger(
    settings: Logging, write: Write | None, clock: Callable[[], float]
) -> tuple[type[Any], list[Any], _Lines]:
    write = StandardOutput() if write is None else write
    stamp = Timestamp(clock)
    last: Any = JsonLine(stamp)
    if settings.format is LogFormat.CONSOLE:
        colour = isinstance(write, StandardOutput) and sys.stdout.isatty() and not no_colour()
        last = ConsoleLine(stamp, colour=colour)
    wrapper = structlog.make_filtering_bound_logger(LEVELS.get(settings.level, logging.INFO))
    return wrapper, [last], _Lines(write)


class _Lines:
    """The object that structlog calls the logger. It writes finished lines."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def msg(self, line: bytes) -> None:
        self._write(line + b"\n")

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


def _trace(exc_info: object) -> str | None:
    """Return the traceback without local variables, which may contain secrets."""
    if exc_info is True or exc_info == 1:
        exc_info = sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if not isinstance(exc_info, BaseException):
        return None
    return "".join(traceback.format_exception(exc_info)).rstrip()


def _plain(value: object) -> str:
    if isinstance(value, str) and value and not any(each in value for each in ' "='):
        return escape_controls(value)
    return escape_controls(json.dumps(value, ensure_ascii=False, default=str))
