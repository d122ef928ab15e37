"""Tests that log lines are machine-readable and contain no secrets."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.log import logger
from akoya_gateway.observability.logs import Log, configure_process_logging, open_log, route_standard_logging
from akoya_gateway.observability.redaction import HIDDEN, redact_text
from akoya_gateway.observability.stdout import StandardOutput
from akoya_gateway.secret import Secret

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhbGljZSIsImF1ZCI6ImRlbW8ifQ.c2lnbmF0dXJlLWJ5dGVz"
ORY = "ory_rt_AbCdEf0123456789.zyxwv-987"
MOMENT = 1_700_000_000.25


@pytest.fixture
def lines() -> list[bytes]:
    return []


@pytest.fixture
def log(lines: list[bytes]) -> Log:
    return open_log(Logging(level="debug"), lines.append, lambda: MOMENT)


def only(lines: list[bytes]) -> dict[str, object]:
    assert len(lines) == 1
    assert lines[0].endswith(b"\n")
    assert lines[0].count(b"\n") == 1
    read = json.loads(lines[0])
    assert isinstance(read, dict)
    return read


def test_line_is_json_with_time_level_event_and_request_id_first(log: Log, lines: list[bytes]) -> None:
    log.warning("store unavailable", store="sqlite:x.db", request_id="r1")
    assert only(lines) == {
        "timestamp": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "event": "store unavailable",
        "request_id": "r1",
        "store": "sqlite:x.db",
    }
    assert list(json.loads(lines[0]))[:4] == ["timestamp", "level", "event", "request_id"]


def test_levels_below_the_configured_one_do_nothing(lines: list[bytes]) -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("was rendered")

    log = open_log(Logging(level="warning"), lines.append)
    log.info("quiet", value=Loud())
    log.debug("quiet", value=Loud())
    assert lines == []


@pytest.mark.parametrize(
    "name",
    ["token", "code", "state", "cookie", "authorization", "client_secret", "password", "set-cookie", "Set_Cookie",
     "refresh_token", "id_token", "access_token", "Proxy-Authorization", "db_password", "code_verifier", "Akoya-Id-Token"],
)  # fmt: skip
def test_field_with_a_secret_name_shows_nothing(log: Log, lines: list[bytes], name: str) -> None:
    log.info("x", **{name: "hush-hush"})
    assert b"hush" not in lines[0]
    log.info("x", nested={"deep": [{name: "hush-hush"}]})
    assert b"hush" not in lines[1]
    log.info("x", headers=[(name.encode(), b"hush-hush"), ("accept", "*/*")])
    assert b"hush" not in lines[2]
    assert b"*/*" in lines[2]


@pytest.mark.parametrize(
    "text",
    [
        f"got {JWT}",
        f"got {JWT[:60]}",
        f"Bearer {ORY}",
        ORY,
        "Authorization: Basic aHVzaC1odXNoOjE=",
        "cookie: __Host-akoya=hush-hush; other=1",
        "set-cookie: __Host-akoya=hush-hush; Path=/",
        "GET https://app.example.com/akoya/callback?code=hush-hush&state=hush-hush failed",
        "redis://user:hush-hush@cache:6379/0 refused",
        "body was grant_type=refresh_token&refresh_token=hush-hush&client_secret=hush-hush",
        "answer {'refresh_token': 'hush-hush', 'token_type': 'bearer'}",
        '{"id_token":"hush-hush"}',
        "[(b'cookie', b'hush-hush')]",
        "x\x1b[2Jcode=hush-hush",
        "db_password=hush-hush my_refresh_token=hush-hush",
    ],
)
def test_secret_inside_a_text_is_masked(log: Log, lines: list[bytes], text: str) -> None:
    log.info(text, detail=text, more=[text], raw=text.encode(), error=ValueError(text))
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("failed")
    for line in lines:
        assert b"hush" not in line
        assert b"eyJ" not in line
        assert b"AbCdEf" not in line
        assert b"aHVzaC1odXNo" not in line


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication failed",
        "status code: 404",
        "status_code=404 grant_state=live",
        "connector mikomo, grant abc",
        "state of the art",
        "took 3.5 s",
    ],
)
def test_plain_text_stays_readable(text: str) -> None:
    assert redact_text(text) == text


def test_secret_value_prints_as_such_at_any_depth(log: Log, lines: list[bytes]) -> None:
    log.info("x", a=Secret("hush-hush"), b={"c": [Secret("hush-hush")]}, d=(Secret("hush-hush"), 1, 2))
    assert b"hush" not in lines[0]
    assert only(lines)["a"] == HIDDEN


def test_exception_shows_its_trace_and_no_local_variables(log: Log, lines: list[bytes]) -> None:
    def inner() -> None:
        mine = "hush-hush"
        raise ValueError(len(mine))

    try:
        inner()
    except ValueError:
        log.exception("failed")
    read = only(lines)
    assert read["level"] == "error"
    assert "in inner" in str(read["exception"])
    assert "hush-hush'" not in str(read["exception"])


@pytest.mark.parametrize("form", list(LogFormat))
def test_no_value_can_start_a_line_or_repaint_a_terminal(form: LogFormat, lines: list[bytes]) -> None:
    log = open_log(Logging(format=form), lines.append)
    evil = 'x\r\n{"level":"error","event":"forged"}\x1b[2J\x85\u2028\u202e\x00'
    log.info(evil, value=evil, request_id=evil, **{evil: 1})
    assert len(lines) == 1
    assert lines[0].count(b"\n") == 1
    text = lines[0].decode()
    for each in "\r\x1b\x85\u2028\u202e\x00":
        assert each not in text


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.text() | st.binary() | st.integers() | st.none() | st.floats(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.binary(), inner, max_size=4),
                    max_leaves=8))  # fmt: skip
def test_anything_can_be_logged(value: object) -> None:
    for form in LogFormat:
        out: list[bytes] = []
        open_log(Logging(format=form), out.append).info("event", value=value)
        assert len(out) == 1
        assert out[0].count(b"\n") == 1
        assert not any(line.startswith(b"{") for line in out[0].splitlines()[1:])


def test_value_whose_repr_fails_is_still_logged(log: Log, lines: list[bytes]) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    log.info("x", value=Broken())
    assert only(lines)["value"] == "<Broken>"


def test_console_lines_are_for_people(lines: list[bytes]) -> None:
    log = open_log(Logging(format=LogFormat.CONSOLE), lines.append, lambda: MOMENT)
    log.error("store unavailable", store="sqlite:x.db", note="two words")
    assert lines == [b'22:13:20.250 error   store unavailable  store=sqlite:x.db note="two words"\n']


class TestStandardLibrary:
    @pytest.fixture(autouse=True)
    def restored(self) -> Iterator[None]:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        names = (
            "uvicorn",
            "uvicorn.error",
            "uvicorn.access",
            "uvicorn.asgi",
            "httpx",
            "httpcore",
            "websockets",
            "asyncio",
        )
        before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}
        yield
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        for name, (old, propagate) in before.items():
            logging.getLogger(name).setLevel(old)
            logging.getLogger(name).propagate = propagate

    def test_structlog_loggers_are_written_in_the_gateways_format(self, lines: list[bytes]) -> None:
        early = structlog.get_logger("early")
        try:
            configure_process_logging(Logging(), lines.append)
            early.warning("late", refresh_token="hush")
            early.debug("never")
            logging.getLogger("x").error("too")
        finally:
            structlog.reset_defaults()
        assert [json.loads(line)["event"] for line in lines] == ["late", "too"]
        assert b"hush" not in lines[0]

    def test_events_of_the_inside_keep_their_fields_and_their_level(self, log: Log, lines: list[bytes]) -> None:
        route_standard_logging(log, Logging())
        inside = logger("akoya_gateway.test")
        inside.debug("never")
        inside.critical("100 % lost", grant="g1", refresh_token="hush", count=2)
        assert only(lines) == {
            "timestamp": "2023-11-14T22:13:20.250Z",
            "level": "critical",
            "event": "100 % lost",
            "grant": "g1",
            "refresh_token": HIDDEN,
            "count": 2,
        }

    def test_inside_another_app_they_are_the_hosts_and_nothing_is_printed(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.INFO)
        logger("akoya_gateway.test").info("connected", connector="mikomo", scope="100 %s")
        try:
            raise ValueError("x")
        except ValueError:
            logger("akoya_gateway.test").exception("listener failed")
        assert caplog.messages == ["connected connector=mikomo scope=100 %s", "listener failed"]
        assert caplog.records[1].exc_info is not None
        assert capfd.readouterr().out == ""

    def test_other_loggers_are_written_in_the_gateways_format(self, log: Log, lines: list[bytes]) -> None:
        route_standard_logging(log, Logging())
        logging.getLogger("akoya_gateway.store").warning("read-only: %s", "/x", extra={"grant": "g1", "token": "hush"})
        read = only(lines)
        assert (read["event"], read["logger"], read["grant"], read["token"]) == (
            "read-only: /x",
            "akoya_gateway.store",
            "g1",
            HIDDEN,
        )

    def test_uvicorn_and_httpx_do_not_log_urls(self, log: Log, lines: list[bytes]) -> None:
        route_standard_logging(log, Logging(level="info"))
        logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "1.2.3.4", "/x?code=hush")
        logging.getLogger("uvicorn.access").error("GET /x?code=hush")
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
            client.get("https://idp.example.com/auth?code=hush")
        assert lines == []

    def test_even_at_debug_httpx_shows_no_query(self, log: Log, lines: list[bytes]) -> None:
        route_standard_logging(log, Logging(level="debug"))
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
            client.get("https://idp.example.com/auth?code=hush&x=hush")
        assert b"idp.example.com/auth" in b"".join(lines)
        assert b"hush" not in b"".join(lines)

    def test_exception_of_an_application_is_one_line(self, log: Log, lines: list[bytes]) -> None:
        route_standard_logging(log, Logging())
        try:
            raise RuntimeError(f"token {JWT}")
        except RuntimeError as error:
            logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
        read = only(lines)
        assert read["event"] == "Exception in ASGI application"
        assert "RuntimeError" in str(read["exception"])
        assert "eyJ" not in str(read)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_console_log_on_a_terminal_has_no_colours_if_unwanted(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], coloured: bool
) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environ}.items():
        monkeypatch.setenv(name, value)
    reader, writer = os.pipe()
    open_log(Logging(format=LogFormat.CONSOLE), StandardOutput(writer)).warning("store unavailable")
    line = os.read(reader, 4096)
    os.close(reader)
    os.close(writer)
    assert b"store unavailable" in line
    assert (b"\x1b[" in line) is coloured
