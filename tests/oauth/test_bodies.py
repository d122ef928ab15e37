"""Decoding of responses that cannot be requested twice: encodings, charsets and members, as lenient as is safe."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.oauth.response_body import MAX_LAYERS, UnreadableBody, plain_body
from akoya_gateway.oauth.response_members import UNREADABLE, Members, find_member, read_object

LIMIT = 10_000
BODY = json.dumps({"id_token": "a.b.c", "refresh_token": "r-2", "pad": "x" * 400}).encode()
NAMES = frozenset({"id_token", "refresh_token", "expires_in"})


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


def plain(raw: bytes, encoding: str = "", content_type: str = "application/json") -> bytes:
    return plain_body(raw, encoding, content_type, LIMIT)


@pytest.mark.parametrize("body", [BODY, b" \r\n" + BODY, b"[1]", b"{}", b'\n{"a":1}'])
@pytest.mark.parametrize(
    ("pack", "label"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, "x-gzip"),
        (gzip.compress, "GZip"),
        (gzip.compress, ""),
        (gzip.compress, "identity"),
        (gzip.compress, "deflate"),
        (gzip.compress, "utf-8"),
        (zlib.compress, "deflate"),
        (zlib.compress, "gzip"),
        (zlib.compress, ""),
        (raw_deflate, "deflate"),
        (raw_deflate, "x-deflate"),
        (raw_deflate, "gzip"),
        (lambda data: gzip.compress(gzip.compress(data)), "gzip, gzip"),
        (lambda data: gzip.compress(gzip.compress(data)), "gzip"),
        (lambda data: gzip.compress(zlib.compress(data)), "deflate, gzip"),
        (lambda data: gzip.compress(raw_deflate(data)), "deflate,gzip"),
        (lambda data: gzip.compress(data[:2]) + gzip.compress(data[2:]), "gzip"),
        (lambda data: gzip.compress(data) + b"\0" * 100, "gzip"),
        (lambda data: gzip.compress(data) + b"\r\n", "gzip"),
        (lambda data: data, "gzip"),
        (lambda data: data, "deflate"),
        (lambda data: data, "br"),
        (lambda data: data, "none"),
        (brotli.compress, "br"),
        (lambda data: gzip.compress(brotli.compress(data)), "br, gzip"),
        (zstandard.compress, "zstd"),
        (zstandard.compress, ""),
        (zstandard.compress, "gzip"),
        (lambda data: zstandard.compress(data[:2]) + zstandard.compress(data[2:]), "zstd"),
    ],
)
def test_body_is_decompressed_by_its_bytes_whatever_its_label(
    body: bytes, pack: Callable[[bytes], bytes], label: str
) -> None:
    assert plain(pack(body), label) == body.strip()


@pytest.mark.parametrize(
    ("raw", "label", "reason"),
    [
        (b"\x1b\x05\x00\x00 not json", "br", "broken"),
        (b"\x1b\x05\x00\x00 not json", "compress", "unknown Content-Encoding"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "zstd", "broken"),
        (gzip.compress(BODY, mtime=0)[:10] + b"\xff" * 40, "gzip", "broken"),
        (gzip.compress(BODY, mtime=0)[:10] + b"\xff" * 40, "", "broken"),
        (b"<html>", "deflate", "broken"),
    ],
)
def test_body_that_cannot_be_decompressed_is_refused(raw: bytes, label: str, reason: str) -> None:
    with pytest.raises(UnreadableBody, match=reason):
        plain(raw, label)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_truncated_compressed_body_gives_the_part_that_arrived(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnreadableBody, match="cut off") as refused:
        plain(pack(BODY)[:-6], "gzip")
    assert BODY.startswith(refused.value.part) and len(refused.value.part) > 50


@pytest.mark.parametrize(("pack", "trailer"), [(gzip.compress, 8), (zlib.compress, 4)])
@pytest.mark.parametrize("pad", [0, 9000])
def test_body_with_a_wrong_checksum_gives_all_of_its_bytes(
    pack: Callable[[bytes], bytes], trailer: int, pad: int
) -> None:
    """A refresh token that was rotated is in this response only."""
    body = BODY[:-1] + b',"x":"' + random.Random(7).randbytes(pad // 2).hex().encode() + b'"}'
    packed = pack(body)
    with pytest.raises(UnreadableBody, match="cut off") as refused:
        plain(packed[:-trailer] + bytes(trailer), "gzip")
    assert refused.value.part == body


@pytest.mark.parametrize(
    ("module", "packed", "label"),
    [("brotli", brotli.compress(BODY), "br"), ("zstandard", zstandard.compress(BODY), "zstd")],
)
def test_coding_without_its_module_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, packed: bytes, label: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnreadableBody, match=rf"is {label}, which needs akoya-gateway\[codings\]"):
        plain(packed, label)
    assert plain(BODY, label) == BODY


def test_decompression_bomb_of_any_depth_stays_within_the_limit() -> None:
    bomb = b" " * 50_000_000
    for layer in range(1, MAX_LAYERS + 3):
        bomb = gzip.compress(bomb)
        try:
            assert len(plain(bomb, "gzip")) <= LIMIT + 1
        except UnreadableBody as refused:
            assert layer > MAX_LAYERS and len(refused.part) <= LIMIT + 1
    assert len(plain(gzip.compress(b"{" + b"x" * LIMIT), "gzip")) == LIMIT + 1
    assert len(plain(b"x" * (LIMIT + 5))) == LIMIT + 1
    for pack, label in ((brotli.compress, "br"), (zstandard.compress, "zstd")):
        assert len(plain(pack(b"{" + b" " * 5_000_000), label)) == LIMIT + 1
    many = gzip.compress(b"{") + gzip.compress(b"") * 5000
    with pytest.raises(UnreadableBody):
        plain(many, "gzip")


TEXT = '{"refresh_token": "r-2", "bank": "Zürich ü"}'


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (TEXT.encode("utf-8-sig"), "application/json; charset=utf-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbf" + TEXT.encode(), "application/json"),
        (TEXT.encode(), "application/json; charset=utf-16"),
        (TEXT.encode("latin-1"), "application/json; charset=iso-8859-1"),
        (TEXT.encode("latin-1"), 'application/json;charset="ISO-8859-1"; x=y'),
        (TEXT.encode("cp1252"), "text/html; Charset = windows-1252"),
        (TEXT.encode("utf-16"), "application/json; charset=utf-16"),
        (TEXT.encode("utf-16"), "application/json"),
        (TEXT.encode("utf-16-le"), "application/json; charset=utf-16le"),
        (TEXT.encode("utf-16-be"), "application/json"),
        (TEXT.encode("utf-32"), "application/json; charset=utf-8"),
        (TEXT.encode("utf-32-le"), "application/json"),
        (TEXT.encode("utf-32-be"), "application/json"),
        (TEXT.encode() + b"\0\0\0", "application/json"),
        (TEXT.encode() + b" \r\n\t\0", "application/x-www-form-urlencoded"),
        (TEXT.encode("utf-16") + "\0\n".encode("utf-16-le"), "application/json"),
    ],
)
def test_text_is_decoded_by_mark_nul_bytes_or_declared_charset(raw: bytes, content_type: str) -> None:
    assert plain(raw, content_type=content_type).decode() == TEXT
    assert plain(gzip.compress(raw), "gzip", content_type).decode() == TEXT


@pytest.mark.parametrize("charset", ["rot13", "base64", "zip", "unicode_escape", "idna", "no-such", "x" * 99, ""])
def test_unknown_charset_is_ignored(charset: str) -> None:
    read = plain(TEXT.encode("latin-1"), content_type=f"application/json; charset={charset}")
    assert read_object(read, NAMES) == Members({"refresh_token": "r-2"})


@pytest.mark.parametrize("charset", ["shift_jis", "gbk", "gb18030", "big5"])
def test_charset_with_ascii_bytes_in_its_letters_is_decoded_as_declared(charset: str) -> None:
    text = (
        '{"bank": "ソ表", "refresh_token": "r-2"}'
        if charset == "shift_jis"
        else '{"bank": "誠", "refresh_token": "r-2"}'
    )
    read = plain(text.encode(charset), content_type=f"application/json; charset={charset}")
    assert read.decode() == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"refresh_token": "r-2", "id_token": "a"}',
        b'{"a":1,"a":2,"refresh_token":"r-2","id_token":"a"}',
        b'{"id_token":"a","refresh_token":"r-2","x":{"y":1,"y":[{},{"y":2}]}}',
        b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b',"refresh_token":"r-2","id_token":"a"}',
        b'{"x":NaN,"y":-Infinity,"z":0x1F,"refresh_token":"r-2","id_token":"a"}',
        b'{"x":"\xff\x00","refresh_token":"r-2","id_token":"a"}',
        b'{"x":"a\\"}{\\\\","refresh_token":"r-2","id_token":"a",}',
        b'{"refresh_token":"r-2","refresh_token":"r-2","id_token":"a"}',
        b'{"refresh\\u005ftoken":"r\\u002d2","id_token":"a","x":' + b"9" * 5000 + b"}",
    ],
)
def test_invalid_member_that_is_not_used_is_ignored(body: bytes) -> None:
    assert read_object(body, NAMES) == Members({"refresh_token": "r-2", "id_token": "a"})


@pytest.mark.parametrize(
    ("body", "values", "fault"),
    [
        (b"", {}, "not JSON"),
        (b"null", {}, "not a JSON object"),
        (b"[]", {}, "not a JSON object"),
        (b'"text"', {}, "not a JSON object"),
        (b"<html>", {}, "not JSON"),
        (b'{"refresh_token":"r-2"', {"refresh_token": "r-2"}, "not JSON"),
        (b'{"refresh_token":"r-2","id_token":"a', {"refresh_token": "r-2"}, "not JSON"),
        (b'{"refresh_token":"r-', {}, "not JSON"),
        (b'{"refresh_token":"r-2" "x":1}', {"refresh_token": "r-2"}, "not JSON"),
        (b'{"refresh_token":"r-2"}{}', {"refresh_token": "r-2"}, "more than one JSON value"),
        (b'{"refresh_token":"r-2"}<!-- -->', {"refresh_token": "r-2"}, "more than one JSON value"),
        (b'{"x":[},"refresh_token":"r-2"}', {}, "not JSON"),
        (b'{"x":,"refresh_token":"r-2"}', {}, "not JSON"),
        (b'{"refresh_token":"r-1","refresh_token":"r-2"}', {"refresh_token": "r-2"}, "refresh_token occurs twice"),
        (b'{"refresh_token":nul,"id_token":"a"}', {"id_token": "a"}, "refresh_token is not JSON"),
        (b'{"refresh_token":"r-2","id_token":"a\nb"}', {"refresh_token": "r-2", "id_token": "a\nb"}, None),
        (b'{"expires_in":' + b"[" * 9999 + b"]" * 9999 + b"}", {}, "expires_in is not JSON"),
        (b"{" + b'"a":1,' * 2000 + b'"b":1}', {}, "more than 1024 members"),
    ],
)
def test_members_before_a_syntax_error_are_read(body: bytes, values: dict[str, str], fault: str | None) -> None:
    assert read_object(body, NAMES) == Members(values, fault)


@pytest.mark.parametrize("value", ["0600", "+5", ".5", "5.", "0x1f", "1_000", "nul", "[1", "9" * 5000, '"a\\x"'])
def test_optional_member_that_is_not_json_is_no_fault(value: str) -> None:
    body = f'{{"refresh_token":"r-2","expires_in":{value},"id_token":"a"}}'.encode()
    if value == "[1":
        body = body.replace(b"[1,", b"[1 2],")
    expected = {"refresh_token": "r-2", "expires_in": UNREADABLE, "id_token": "a"}
    assert read_object(body, NAMES, frozenset({"expires_in"})) == Members(expected)


def test_optional_member_with_two_values_is_no_fault() -> None:
    body = b'{"expires_in":5,"refresh_token":"r-2","expires_in":6,"expires_in":6}'
    expected = {"refresh_token": "r-2", "expires_in": UNREADABLE}
    assert read_object(body, NAMES, frozenset({"expires_in"})) == Members(expected)


@pytest.mark.parametrize(
    ("body", "values", "fault"),
    [
        (b"refresh_token=r-2&id_token=a.b.c&expires_in=900", {"refresh_token": "r-2", "id_token": "a.b.c", "expires_in": "900"}, None),
        (b"refresh_token=r%2F2%3D&x=1&scope=a+b\r\n", {"refresh_token": "r/2="}, None),
        (b"refresh_token=", {"refresh_token": ""}, None),
        (b"refresh_token=r-1&refresh_token=r-2", {"refresh_token": "r-2"}, "refresh_token occurs twice"),
        (b"refresh_token=r-2&" + b"x=1&" * 1100, {}, "not JSON"),
        (b"x=1", {}, "not JSON"),
        (b"refresh_token=<b>", {}, "not JSON"),
        (b"oops: refresh_token=r-2", {}, "not JSON"),
    ],
)  # fmt: skip
def test_form_is_read_as_an_object_of_texts(body: bytes, values: dict[str, str], fault: str | None) -> None:
    assert read_object(body, NAMES) == Members(values, fault)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'[{"refresh_token": "r-2"}]', "r-2"),
        (b'{"data":{"refresh_token":"r\\/2\\u003d"}}', "r/2="),
        (b'"{\\"id_token\\":\\"a\\",\\"refresh_token\\":\\"r-2\\"}"', "r-2"),
        (b'<br />\n<b>Notice</b>: Undefined index\n{"refresh_token":"r-2"}', "r-2"),
        (b'callback({"refresh_token":"r-2","x":{"refresh_token":"r-2"}})', "r-2"),
        (b'[{"refresh_token":"r-1"},{"refresh_token":"r-2"}]', None),
        (b'{"data":{"refresh_token":"r-', None),
        (b'{"data":{"refresh_token":null}}', None),
        (b"\xff\xfe", None),
    ],
)
def test_member_is_found_wherever_it_is_if_it_has_one_value(body: bytes, found: str | None) -> None:
    assert find_member(body, "refresh_token") == found


def test_reading_takes_linear_time() -> None:
    for hostile in (
        b'{"' + b'\\"' * 130_000,
        b'{"a":' + b'"' * 260_000,
        b"{" + b" " * 260_000,
        b'{"a":' + b"[{" * 130_000,
    ):
        assert read_object(hostile, NAMES).fault
        assert find_member(hostile, "refresh_token") is None
    assert find_member(b'"refresh_token":"' * 15_000, "refresh_token") is None
    assert read_object(b"a=" * 130_000, NAMES).fault


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (
            {"idToken": "a", "refreshToken": "r", "expiresIn": 9},
            {"id_token": "a", "refresh_token": "r", "expires_in": 9},
        ),
        ({"ID_TOKEN": "a", "Refresh-Token": "r"}, {"id_token": "a", "refresh_token": "r"}),
        ({" refresh_token": "r"}, {"refresh_token": "r"}),
        ({"refreshToken": "other", "refresh_token": "r"}, {"refresh_token": "r"}),
        ({"refresh_token": "r", "refreshToken": "other"}, {"refresh_token": "r"}),
        ({"refresh_token": None, "refreshToken": "r"}, {"refresh_token": "r"}),
        ({"RefreshToken": "", "refreshToken": "r", "refresh_token": ""}, {"refresh_token": "r"}),
        ({"refresh_tokens": "r", "token": "t"}, {}),
    ],
)
def test_member_is_found_by_another_spelling_of_its_name(body: dict[str, object], members: dict[str, object]) -> None:
    assert read_object(json.dumps(body).encode(), NAMES) == Members(members)
    assert find_member(json.dumps([body]).encode(), "refresh_token") in (members.get("refresh_token"), None)


@pytest.mark.parametrize("empty", ["null", '""'])
def test_empty_value_does_not_replace_a_value_of_the_same_name(empty: str) -> None:
    for body in (
        f'{{"refresh_token":"r","refresh_token":{empty}}}',
        f'{{"refresh_token":{empty},"refresh_token":"r"}}',
    ):
        assert read_object(body.encode(), NAMES) == Members({"refresh_token": "r"}, "refresh_token occurs twice")
        assert find_member(f"[{body}]".encode(), "refresh_token") == "r"


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), _SCALARS, max_size=3)


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(max_size=6) | st.sampled_from(sorted(NAMES)), _VALUES, max_size=5),
    st.booleans(),
)
def test_any_json_object_is_read_as_by_the_standard_library(value: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")
    expected = {name: member for name, member in json.loads(body).items() if name in NAMES}
    assert read_object(plain(body), NAMES) == Members(expected)


@settings(max_examples=50)
@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br"]), st.text(max_size=20))
def test_any_bytes_are_read_or_raise_unreadable(raw: bytes, label: str, content_type: str) -> None:
    for body in (raw, b'{"a":' + raw, gzip.compress(raw)):
        with contextlib.suppress(UnreadableBody):
            read_object(plain(body, label, content_type), NAMES)
