"""Tests of the format of the access log. `test_access_log_lines.py` has the lines of a running gateway."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.config.model import LogFormat, Logging
from akoya_gateway.observability.access_log import MAX_ENTRIES, MAX_KEY_BYTES, AccessLog
from akoya_gateway.observability.redaction import escape_controls, redact_text

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJlX3RoYXRfaXNfbG9uZw"
MOMENT = 1_700_000_000.25


class Request(NamedTuple):
    method: str = "GET"
    raw_path: bytes = b"/"
    request_id: str = "r1"

    def logged_fields(self) -> tuple[bytes, str, bytes]:
        return self.raw_path, self.method, self.request_id.encode()


class Lines(list[bytes]):
    """The lines of an access log."""

    def gather(self, parts: tuple[bytes, ...]) -> None:
        self.append(b"".join(parts))


def test_access_log_writes_one_json_line_without_query() -> None:
    lines = Lines()
    log = AccessLog(Logging(), lines.gather)
    log(Request(raw_path=b"/api?code=hush"), 200, "access[1] /api", "passed", MOMENT - 0.01234, MOMENT)
    assert lines == [
        b'{"timestamp":"2023-11-14T22:13:20.250Z","level":"info","event":"request","request_id":"r1","method":"GET",'
        b'"path":"/api","status":200,"duration_ms":12.34,"rule":"access[1] /api","outcome":"passed"}\n'
    ]


def test_access_log_on_console_writes_one_line_without_query() -> None:
    lines = Lines()
    log = AccessLog(Logging(format=LogFormat.CONSOLE), lines.gather)
    log(Request(raw_path=b"/api?code=hush"), 200, "access[1] /api", "passed", MOMENT - 0.01234, MOMENT)
    assert lines == [b"22:13:20.250 request GET /api 200 12.3ms - passed [access[1] /api] r1\n"]


def test_access_log_of_cached_format_has_time_duration_and_request_id_of_each_request() -> None:
    lines = Lines()
    log = AccessLog(Logging(), lines.gather)
    for number, now in enumerate([MOMENT, MOMENT, MOMENT + 0.001, MOMENT + 60]):
        log(Request(request_id=f"r{number}"), 200, "-", "own", now - number / 1000, now)
    found = [json.loads(line) for line in lines]
    assert [each["timestamp"][14:] for each in found] == ["13:20.250Z", "13:20.250Z", "13:20.251Z", "14:20.250Z"]
    assert [each["duration_ms"] for each in found] == [0, 1, 2, 3]
    assert [each["request_id"] for each in found] == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize("form", list(LogFormat))
def test_access_log_distinguishes_similar_requests(form: LogFormat) -> None:
    lines = Lines()
    log = AccessLog(Logging(format=form), lines.gather)
    requests = [
        (Request(), 200, "a", "b"),
        (Request("HEAD"), 200, "a", "b"),
        (Request(raw_path=b"/x"), 200, "a", "b"),
        (Request(), 404, "a", "b"),
        (Request(), 200, "c", "b"),
        (Request(), 200, "a", "c"),
    ]
    for _ in range(3):
        for request, status, rule, outcome in requests:
            log(request, status, rule, outcome, MOMENT, MOMENT)
    assert lines[:6] == lines[6:12] == lines[12:]
    assert len(set(lines)) == 6


SECRETS = ["/reset/" + JWT, "/x/ory_at_0123456789", "/x;token=hush12", "/code=hush12/y", "/https://user:hush12@host/"]


@pytest.mark.parametrize("form", list(LogFormat))
@pytest.mark.parametrize("text", SECRETS)
def test_access_log_masks_secrets_in_path_and_method_on_each_line(form: LogFormat, text: str) -> None:
    lines = Lines()
    log = AccessLog(Logging(format=form), lines.gather)
    for _ in range(3):
        log(Request(text, text.encode()), 404, "-", "no-rule", MOMENT, MOMENT)
    for line in lines:
        assert not any(secret in line for secret in (b"eyJ", b"ory_", b"hush12")), line


@pytest.mark.parametrize("form", list(LogFormat))
@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_access_log_of_hostile_text_stays_one_line(form: LogFormat, text: str) -> None:
    """Not even a request ID can start a line, although `request_id.RequestIds` makes only letters, digits and `._-`."""
    lines = Lines()
    log = AccessLog(Logging(format=form), lines.gather)
    for _ in range(3):
        log(Request(text, text.encode(), text), 200, text, "passed", MOMENT, MOMENT)
    path = text.encode().decode("latin-1").partition("?")[0]
    for line in lines:
        assert line.endswith(b"\n")
        assert len(line.decode().splitlines()) == 1
        if form is LogFormat.JSON:
            found = json.loads(line)
            assert (found["method"], found["path"]) == (redact_text(text, 2048), redact_text(path, 2048))
            assert (found["request_id"], found["rule"]) == (text, text)
        else:
            assert escape_controls(f"{redact_text(text, 2048)} {redact_text(path, 2048)}") in line.decode()


def test_access_log_of_any_number_of_paths_keeps_a_bounded_cache() -> None:
    lines = Lines()
    log = AccessLog(Logging(), lines.gather)
    # Redaction makes the text short, but the key is the text as received.
    longest = b"/eyJ" + b"A" * (MAX_KEY_BYTES - 8)
    for path, cached in [(longest, 1), (longest + b"A", 0)]:
        log._texts.clear()
        for _ in range(2):
            log(Request("GET", path), 200, "-", "own", MOMENT, MOMENT)
        assert len(log._texts) == cached
    for number in range(2 * MAX_ENTRIES):
        for _ in range(2):
            log(Request(f"M{number}", b"/%d" % number), 200, "-", "own", MOMENT, MOMENT)
        assert 0 < len(log._texts) <= MAX_ENTRIES
    assert len(lines) == 4 + 4 * MAX_ENTRIES


@pytest.mark.parametrize("quiet", [Logging(access=False), Logging(level="warning")])
def test_access_log_switched_off_writes_nothing(quiet: Logging) -> None:
    lines = Lines()
    log = AccessLog(quiet, lines.gather)
    log(Request(), 200, "", "passed", MOMENT, MOMENT)
    assert not log.enabled
    assert lines == []
