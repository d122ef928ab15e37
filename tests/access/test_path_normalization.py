"""Path normalization, tested with the attacks that bypassed other gateways (docs/advisories.md)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from akoya_gateway.access.path_normalization import MAX_PATH_BYTES, PathRefused, normalize_path

ACCEPTED = {
    b"/": "/",
    b"/accounts": "/accounts",
    b"/accounts/": "/accounts/",
    b"/.well-known/x": "/.well-known/x",
    b"/a/...": "/a/...",
    b"/a/.hidden": "/a/.hidden",
    b"/%61dmin": "/admin",
    b"/caf%C3%A9": "/café",
    b"/a%20b": "/a b",
    b"/100%25": "/100%",
    b"/100%25/x": "/100%/x",
    b"/a:b@c,d=e+f!$&'()*~": "/a:b@c,d=e+f!$&'()*~",
    b"/a|b".replace(b"|", b"%7C"): "/a|b",
}

REFUSED = [
    b"", b"*", b"a", b"accounts", b"//", b"//evil.com", b"/a//b", b"/a//", b"/.", b"/..", b"/./a", b"/a/.", b"/a/..",
    b"/public/../admin", b"/public/%2e%2e/admin", b"/public/%2E%2e/admin", b"/public/.%2e/admin",
    b"/public/%2e%2e%2fadmin", b"/public%2fadmin", b"/public%2Fadmin", b"/a%5cb", b"/a\\b", b"/\\evil.com",
    b"/a;b", b"/..;/admin", b"/a%3bb", b"/a%00", b"/a\x00", b"/a%0d%0aX", b"/a%0aX", b"/a\tb", b"/a b", b"/a%7f",
    b"/a#b", b"/a%23b", b"/a?b", b"/a%3fb", b"/%252e%252e/admin", b"/%252fadmin", b"/a%25%32e", b"/%25%32%65%25%32%65/admin", b"/%2525%32f", b"/a%", b"/a%2",
    b"/a%zz", b"/a%u0041", b"/%c0%ae%c0%ae/admin", b"/%c0%afadmin", b"/%e0%80%af", b"/\xc3\xa9", b"/%ff", b"/%ed%a0%80",
    b"http://evil.com/a", b"/" + b"a" * MAX_PATH_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("raw", ACCEPTED)
def test_plain_path_is_decoded_once(raw: bytes) -> None:
    assert normalize_path(raw) == ACCEPTED[raw]


@pytest.mark.parametrize("raw", REFUSED)
def test_ambiguous_path_is_refused(raw: bytes) -> None:
    with pytest.raises(PathRefused) as caught:
        normalize_path(raw)
    assert caught.value.status in (400, 414)


def test_refusal_never_repeats_the_path() -> None:
    with pytest.raises(PathRefused) as caught:
        normalize_path(b"/<script>alert(1)</script>//")
    assert "script" not in str(caught.value)


@given(st.binary(max_size=60) | st.text("/.%2eEfF5cC;\\?#a0", max_size=30).map(lambda t: ("/" + t).encode()))
@example(b"/a%25%32e")
def test_any_path_is_refused_or_normalized_to_a_fixed_point(raw: bytes) -> None:
    try:
        text = normalize_path(raw)
    except PathRefused:
        return
    # Decoding once gives exactly the validated path, and no segment can change which resource it names.
    assert unquote_to_bytes(raw).decode() == text
    segments = text.split("/")[1:]
    assert not {"..", "."} & set(segments)
    assert "" not in segments[:-1]
    assert not set("\\;?#\x00\r\n") & set(text)
    # A second decoding changes nothing.
    assert unquote_to_bytes(text).decode() == text
