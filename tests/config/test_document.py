"""From YAML text to values with positions, and every way in which a text is not a valid configuration."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from akoya_gateway.config.diagnostics import ConfigurationError
from akoya_gateway.config.document import MAX_VALUES, parse_document, read_document
from akoya_gateway.config.yaml_nodes import Position


def _fault(content: bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_document(content, "g.yaml")
    assert len(caught.value.diagnostics) == 1
    return str(caught.value.diagnostics[0])


def test_every_value_and_key_has_its_place() -> None:
    document = parse_document(b"a: 1\nb:\n  - x\n  - {c: true}\n", "g.yaml")
    assert document.data == {"a": 1, "b": ["x", {"c": True}]}
    assert document.keys[("b",)] == Position(2, 1)
    assert document.values[("b", 0)] == Position(3, 5)
    assert document.keys[("b", 1, "c")] == Position(4, 6)
    assert document.values[("b", 1, "c")] == Position(4, 9)


def test_columns_count_characters_not_bytes() -> None:
    document = parse_document("ö: [ä𝄞, x]\n".encode(), "g.yaml")
    assert document.values[("ö", 1)] == Position(1, 9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("0777", 777),
        ("0x1f", "0x1f"),
        ("2026-11-24", "2026-11-24"),
        ("true", True),
        ("'true'", "true"),
        ("~", None),
        ("", None),
        ("''", ""),
        ("1.5", 1.5),
        (".inf", ".inf"),
        ("!!str 7", "7"),
        ("/*", "/*"),
        ('"{connector}"', "{connector}"),
        ("{connector}", {"connector": None}),
        ("99999999999999999999999", "99999999999999999999999"),
        (">\n  folded\n  text\n", "folded text\n"),
    ],
)
def test_scalars_are_resolved_as_yaml_1_2_does(text: str, value: object) -> None:
    assert parse_document(f"a: {text}".encode(), "g.yaml").data == {"a": value}


def test_stars_in_flow_mappings_are_no_aliases() -> None:
    data = parse_document(b"a: [{path: /*, require: any}, [/b, /b/*, https://x.example.com/*]]", "g").data
    assert data["a"] == [{"path": "/*", "require": "any"}, ["/b", "/b/*", "https://x.example.com/*"]]


def test_anchors_aliases_and_merges_work() -> None:
    text = b"a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [*a, {z: 4}]}\n"
    document = parse_document(text, "g.yaml")
    assert document.data["b"] == {"x": 1, "y": 2}
    assert document.data["c"] == {"x": 1, "y": 3}
    assert document.data["d"] == {"x": 1, "y": 2, "z": 4}
    assert document.values[("c", "y")] == Position(3, 16)
    assert document.values[("c", "x")] == Position(1, 11)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a: 1\nb: 2\na: 3\n", "g.yaml:3:1: a: this key was given before, in line 1"),
        (b"a: {b: 1,\n b: 2}\n", "g.yaml:2:2: a.b: this key was given before, in line 1"),
        (b"a:\n\tb: 1\n", "g.yaml:2:1: a tab in the indentation"),
        (b"a: *b\n", "g.yaml:1:4: no anchor &b before this alias"),
        (b"x: &base 1\na: *bas\n", 'g.yaml:2:4: no anchor &bas before this alias (did you mean "base"?)'),
        (b"a: &a [*a]\n", "g.yaml:1:8: the alias *a is inside the node that it refers to"),
        (b"a: &a 1\nb: &a 2\n", "g.yaml:2:4: the anchor &a is defined twice"),
        (b"a: {<<: 7}\n", "g.yaml:1:9: a: only mappings can be merged"),
        (b"a: !env NAME\n", 'g.yaml:1:4: unknown tag "!env"'),
        (b"a: !!python/object/apply:os.system [ls]\n", 'g.yaml:1:4: unknown tag "!!python/object/apply:os.system"'),
        (b"a: 1\n---\nb: 1\n", "g.yaml:2:1: a second document starts here"),
        (b"? [a]\n: 1\n", "g.yaml:1:3: a key must be a non-empty text"),
        (b"a: \x00\n", "g.yaml:1:4: a NUL byte in the text"),
        (b"a: 1\nb: \x07\n", "g.yaml:2:4: the control character U+0007 in the text"),
        (b"a: \xff\n", "g.yaml:1:4: byte 0xff is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "g.yaml:1:1: the file is UTF-16"),
        (b"", "g.yaml:1:1: the file is empty"),
        (b"# nothing\n", "g.yaml:1:1: the file is empty"),
        (b"- a\n", "g.yaml:1:1: the top level is a list, not a mapping"),
        (b"just words\n", "g.yaml:1:1: the top level is a text, not a mapping"),
        (b"null\n", "g.yaml:1:1: the top level is nothing, not a mapping"),
        (b"a: b: c\n", "g.yaml:1:5: a `:` where no key can be"),
        (b"a: 'x\n", "g.yaml:1:4: a quoted text is not closed"),
        (b"a: [1, 2\nb: 3\n", "g.yaml:1:4: a list or mapping in brackets is not closed"),
        (b"a: @x\n", "g.yaml:1:4: a character that cannot start a value"),
        (b"a: " + b"[" * 500, "g.yaml:1:44: nested more than 40 levels deep"),
    ],
)
def test_text_that_is_no_configuration_has_one_clear_fault(content: bytes, fault: str) -> None:
    assert _fault(content).startswith(fault)


def test_billion_laughs_are_not_laughed() -> None:
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)]
    assert f"more than {MAX_VALUES} values" in _fault(b"\n".join(lines))


@pytest.mark.parametrize("content", [b"a: " + b"[" * 5000, b"[" * 500_000])
def test_nesting_beyond_what_the_parser_takes_has_the_same_fault(content: bytes) -> None:
    assert "nested more than 40 levels deep" in _fault(content)


def test_deep_nesting_by_aliases_is_bounded() -> None:
    lines = [b"a0: &a0 [x]"] + [b"a%d: &a%d [*a%d]" % (i, i, i - 1) for i in range(1, 60)]
    assert "nested more than 40 levels deep" in _fault(b"\n".join(lines))


def test_several_mistakes_of_a_text_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_document(b"a: !x 1\na: 2\nb: *c\n", "g.yaml")
    assert [diagnostic.line for diagnostic in caught.value.diagnostics] == [1, 2, 3]


def _read(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_document(path)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.message


def test_missing_file_directory_and_invalid_name_are_reported(tmp_path: Path) -> None:
    assert _read(tmp_path / "missing.yaml") == "there is no such file"
    assert _read(tmp_path) == "this is a directory"
    assert "cannot be read" in _read(Path("/dev/null/x"))
    assert "cannot be read" in _read(Path("nul\0byte"))
    assert "cannot be read" in _read(tmp_path / ("x" * 5000))


@pytest.fixture
def nobody() -> Iterator[None]:
    """Drop root privileges for a test, because root can read every file."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("nobody")
def test_unreadable_file_is_reported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "g.yaml"
        file.write_text("a: 1")
        file.chmod(0)
        assert _read(file) == "the file may not be read by this user"
        Path(folder).chmod(0)
        assert _read(file) == "the file may not be read by this user"
        Path(folder).chmod(0o700)


def test_of_a_huge_file_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(10 * 1024 * 1024)
    assert _read(file) == "the file is larger than 1 MiB"


def test_endless_file_ends() -> None:
    assert _read(Path("/dev/zero")) == "the file is larger than 1 MiB"


def test_byte_order_mark_before_the_file_is_ignored_and_places_stay_right() -> None:
    document = parse_document("\ufeffa: 1\n".encode(), "g.yaml")
    assert document.data == {"a": 1}
    assert (document.keys[("a",)].line, document.keys[("a",)].column) == (1, 1)
