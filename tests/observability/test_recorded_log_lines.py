"""The format of log lines, byte for byte, as JSON and for a terminal.

`recorded_log_lines.txt` is the contract of log parsers. After a deliberate change, record it again, and read the difference:

    AKOYA_RECORD=1 python -m pytest tests/observability/test_recorded_log_lines.py && git diff tests/observability
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.log import logger
from akoya_gateway.observability.logs import Log, open_log, route_standard_logging
from akoya_gateway.secret import Secret

RECORDING = Path(__file__).parent / "recorded_log_lines.txt"
MOMENT = 1_700_000_000.25


class Broken:
    def __repr__(self) -> str:
        raise ValueError("a broken repr")


def every_kind_of_event(log: Log) -> None:
    for level in ("debug", "info", "warning", "warn", "error", "critical"):
        getattr(log, level)(f"{level} event", number=1)
    log.info("no fields")
    log.info("order", zebra=1, request_id="r1", alpha=2)
    log.info("reserved names", level="x", timestamp="y", logger="z", stack_info="s")
    log.info("types", none=None, true=True, int=7, float=0.5, nan=float("nan"), list=[1, "a b"], tuple=(1, 2), empty="")
    log.info("mappings", mapping={"a": {"b": [1, {"c": "d"}]}, 1: b"bytes"}, path=Path("/x"), broken=Broken())
    log.info("bytes", text=b"caf\xc3\xa9", view=memoryview(b"abc"))
    log.info("spaces and quotes", spaced="a b", equals="a=b", quoted='say "hi"', unicode="caf\u00e9 \u2713")
    log.info("two\nlines \x1b[31m", **{"na\nme": "a\tb\u2028c", "surrogate": "\ud800"})
    log.info("100 %s", percent="%d")
    log.info("secrets", token="hush", secret=Secret("hush"), url="https://u:hush@x/y?code=hush", header="Cookie: hush")
    log.info("long", text="x" * 5000, deep=[[[[[[[["deep"]]]]]]]], wide=list(range(70)))
    log.info("bound", event_id=1)
    log.bind(client="demo").warning("bound fields", request_id="r2")


def every_kind_of_exception(log: Log) -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer\nwith token=hush") from error
    except RuntimeError as error:
        log.exception("exception", number=1)
        log.error("error with exc_info", exc_info=True)
        log.warning("an instance", exc_info=error, request_id="r3")
        log.info("a tuple", exc_info=(type(error), error, error.__traceback__))
        logging.getLogger("library").exception("library failed: %s", "why")
        logger("akoya_gateway.part").error("part failed", exc_info=error, reason="why")
    log.error("no exception", exc_info=False)
    log.error("outside of a handler", exc_info=True)


def every_kind_of_record() -> None:
    library = logging.getLogger("library")
    for level in (10, 20, 25, 30, 40, 45, 50):
        library.log(level, "level %d", level, extra={"field": level})
    library.info("  100 % of it  ")
    library.warning("an extra event", extra={"event_": 1, "color_message": "red", "token": "hush"})
    library.info("wrong arguments %d", "x")
    logger("akoya_gateway.part").info("part event", connector="mikomo", request_id="r4", token="hush")


def test_log_lines_equal_the_recording() -> None:
    recorded = []
    for name, settings in (
        ("JSON", Logging(level="debug")),
        ("console", Logging(level="debug", format=LogFormat.CONSOLE)),
        ("JSON, from level warning", Logging(level="warning")),
    ):
        lines: list[bytes] = []
        log = open_log(settings, lines.append, lambda: MOMENT)
        every_kind_of_event(log)
        with_standard_logging(log, settings, partial(every_kind_of_exception, log))
        with_standard_logging(log, settings, every_kind_of_record)
        text = b"".join(lines).decode("utf-8", "backslashreplace")
        recorded.append(f"=== {name}\n{normalized(text)}")
    text = "\n".join(recorded)
    if os.environ.get("AKOYA_RECORD"):
        RECORDING.write_text(text, "utf-8")
    assert text.split("\n") == RECORDING.read_text("utf-8").split("\n")


def with_standard_logging(log: Log, settings: Logging, use: Callable[[], Any]) -> None:
    """Send the records of the standard library to `log` during `use`."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    route_standard_logging(log, settings)
    try:
        use()
    finally:
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)


def normalized(text: str) -> str:
    """Replace paths and line numbers of tracebacks, and the marks below source lines (which depend on Python)."""
    text = re.sub(r'File \\?"[^"]*?(\w+\.py)\\?", line \d+', r"File \1, line N", text)
    text = re.sub("x{100,}", lambda found: f"<{len(found[0])} x>", text)
    return re.sub(r"\\n[ ~^]+(?=\\n)|(?m:^[ ~^]+\n)", "", text)
