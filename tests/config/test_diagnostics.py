"""The format of diagnostics."""

from __future__ import annotations

import shutil
from pathlib import Path

from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, did_you_mean, dotted, quoted
from akoya_gateway.config.loader import validate_config
from tests.support.config_documents import ENVIRON, error_lines, validated


def test_diagnostic_has_the_documented_format() -> None:
    diagnostic = Diagnostic(
        "gateway.yaml",
        31,
        13,
        ("connectors", "mikomo", "client"),
        'no client named "demo-ap"',
        'did you mean "demo-app"?',
    )
    text = 'gateway.yaml:31:13: connectors.mikomo.client: no client named "demo-ap" (did you mean "demo-app"?)'
    assert str(diagnostic) == text


def test_paths_stay_on_one_line_and_readable() -> None:
    assert dotted(("access", 2, "require")) == "access[2].require"
    assert dotted(("clients", "a b\n", "x")) == 'clients."a b\\n".x'


def test_values_in_messages_are_one_short_ascii_line() -> None:
    assert quoted("a\n\x1b[31m\u202eü") == '"a\\n\\u001b[31m\\u202e\\u00fc"'
    assert len(quoted("x" * 1000)) <= 80


def test_nearest_name_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("demo-ap", ["other", "demo-app"]) == 'did you mean "demo-app"?'
    assert did_you_mean("REFRESH-before", ["refresh_before"]) == 'did you mean "refresh_before"?'
    assert did_you_mean("zzz", ["demo-app"]) is None


def test_error_lists_faults_by_position_and_each_once() -> None:
    first, second = Diagnostic("g", 2, 9, ("a",), "x"), Diagnostic("g", 10, 1, ("b",), "y")
    assert ConfigurationError([second, first, second]).diagnostics == (first, second)


def test_ten_planted_faults_are_ten_lines_in_their_places(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    shutil.copy(Path(__file__).with_name("ten_faults.yaml"), file)
    environ = {**ENVIRON, "SHORT_SECRET": "too short"}
    faults = validate_config(file, environ).diagnostics
    assert [(diagnostic.line, diagnostic.column, diagnostic.location) for diagnostic in faults] == [
        (3, 1, "upstreem"),
        (6, 45, "environments.sandbox.timeout"),
        (8, 29, "environments.plain.authorization_endpoint"),
        (15, 20, "clients.demo-app.client_secret"),
        (16, 19, "clients.demo-app.redirect_uri"),
        (19, 20, "connectors.mikomo.client"),
        (23, 38, "access[1].require"),
        (24, 25, "access[2].require"),
        (24, 43, "access[2].otherwise"),
        (31, 10, "signing.keys[0]"),
    ]
    assert all(str(diagnostic).startswith(f"{file}:{diagnostic.line}:{diagnostic.column}: ") for diagnostic in faults)
    assert not any("\n" in str(diagnostic) for diagnostic in faults)
    assert "hunter2" not in "\n".join(map(str, faults))


def test_misspelt_required_key_is_one_fault(tmp_path: Path) -> None:
    text = (Path(__file__).with_name("ten_faults.yaml")).read_text()
    assert "client_id: demo" in text
    result = validated(tmp_path, text.replace("client_id: demo", "clientid: demo"))
    assert [line for line in error_lines(result) if "client_id" in line] == [
        'clients.demo-app.clientid: unknown key "clientid" (did you mean "client_id"?)'
    ]


def test_broken_part_does_not_make_others_complain(tmp_path: Path) -> None:
    lines = error_lines(validated(tmp_path, {"environments.sandbox.preset": "akoya-snadbox"}))
    assert len(lines) == 1
    assert 'did you mean "akoya-sandbox"?' in lines[0]
    lines = error_lines(validated(tmp_path, {"public_url": "ftp://x"}))
    assert len(lines) == 1
    assert error_lines(validated(tmp_path, {"clients": 7})) == ["clients: expected a mapping, not 7"]
    assert len(error_lines(validated(tmp_path, {"connectors.mikomo": "demo-app"}))) == 1
    assert (
        len(error_lines(validated(tmp_path, {"environments": {"UPPER": {"preset": "akoya-sandbox"}}}))) == 2
    )  # and its reference
