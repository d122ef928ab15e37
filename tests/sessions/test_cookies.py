"""The gateway's cookies in headers, among arbitrary other cookies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.config.model import Cookie, SameSite
from akoya_gateway.sessions.cookies import (
    browser_cookie_name,
    delete_browser_cookie,
    delete_cookie,
    gateway_cookie_names,
    read_cookie,
    set_browser_cookie,
    set_cookie,
    strip_cookies,
)
from akoya_gateway.sessions.random_tokens import new_token

NAME = b"__Host-akoya"
VALUE = "v" * 43
OURS = NAME + b"=" + VALUE.encode()
COOKIE = Cookie("__Host-akoya", secure=True)


@pytest.mark.parametrize(
    "header",
    [
        OURS,
        b"a=b; " + OURS,
        OURS + b"; a=b",
        b"a=b;" + OURS + b";c=d",
        b"a=b; \t " + OURS + b" ;",
        b"junk; ;; =; " + OURS,
    ],
)
def test_session_cookie_is_found_among_others(header: bytes) -> None:
    assert read_cookie(header, NAME) == VALUE


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"a=b",
        b"x" + OURS,
        b"a=" + OURS,
        b"a=b, " + OURS,
        NAME + b"-browser=" + VALUE.encode(),
        NAME + b"=",
        NAME + b"=" + VALUE.encode() + b"v",
        NAME + b'="' + VALUE.encode() + b'"',
        NAME + b"=" + b"\xff" * 43,
        NAME.lower() + b"=" + VALUE.encode(),
        NAME + b" =" + VALUE.encode(),
        OURS + b"; " + OURS,
        OURS + b"; a=b; " + NAME + b"=" + b"w" * 43,
        NAME + b"=x; " + OURS,
    ],
)
def test_foreign_or_ambiguous_cookies_are_ignored(header: bytes) -> None:
    assert read_cookie(header, NAME) is None


def test_million_junk_cookies_are_walked_over_once() -> None:
    junk = b"a=b; " * 1_000_000
    assert read_cookie(junk + OURS, NAME) == VALUE
    assert read_cookie(junk, NAME) is None
    assert read_cookie((OURS + b"; ") * 100_000, NAME) is None
    assert read_cookie(b" " * 200_000 + OURS, NAME) == VALUE
    assert read_cookie((b" " * 50 + NAME + b"=") * 20_000, NAME) is None


@given(st.binary(max_size=300))
def test_cookie_header_with_any_bytes_is_parsed_or_ignored(header: bytes) -> None:
    value = read_cookie(header, NAME)
    assert value is None or len(value) == 43
    stripped = strip_cookies(header, (NAME,))
    assert stripped is None or read_cookie(stripped, NAME) is None


pairs = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", NAME, NAME + b"-browser", b"x" + NAME, b""]), st.binary(max_size=6)).map(
        lambda pair: pair[0] + b"=" + pair[1].replace(b";", b"")
    ),
    max_size=8,
)


@given(pairs, st.sampled_from([b";", b"; ", b" ; "]))
def test_stripping_removes_gateway_cookies_and_keeps_the_others_unchanged(
    cookies: list[bytes], separator: bytes
) -> None:
    names = gateway_cookie_names(COOKIE)
    stripped = strip_cookies(separator.join(cookies), names)
    left = [] if stripped is None else [pair.strip(b" \t") for pair in stripped.split(b";")]
    others = [pair.strip(b" \t") for pair in cookies if pair.partition(b"=")[0].strip(b" \t") not in names]
    assert [pair for pair in left if pair] == [pair for pair in others if pair]


def test_cookie_header_without_gateway_cookies_is_unchanged() -> None:
    header = b"a=b;  c = d ;e"
    assert strip_cookies(header, gateway_cookie_names(COOKIE)) is header


def test_nothing_left_is_no_header() -> None:
    assert strip_cookies(OURS, gateway_cookie_names(COOKIE)) is None
    assert strip_cookies(OURS + b"; __Host-akoya-browser=x", gateway_cookie_names(COOKIE)) is None
    assert strip_cookies(b"a=b; " + OURS, gateway_cookie_names(COOKIE)) == b"a=b"


def attributes(header: bytes) -> set[str]:
    return {part.partition("=")[0] if part.startswith("Max-Age") else part for part in header.decode().split("; ")[1:]}


def test_session_cookie_is_closed_in() -> None:
    header = set_cookie(COOKIE, VALUE, 99.9)
    assert header == f"__Host-akoya={VALUE}; Path=/; Max-Age=99; HttpOnly; SameSite=Lax; Secure".encode()
    assert b"SameSite=Strict" in set_cookie(replace(COOKIE, same_site=SameSite.STRICT), VALUE, 1)
    assert b"Secure" not in set_cookie(replace(COOKIE, secure=False, name="akoya"), VALUE, 1)


def test_deletion_has_the_attributes_of_what_it_deletes() -> None:
    assert attributes(delete_cookie(COOKIE)) == attributes(set_cookie(COOKIE, VALUE, 1))
    assert attributes(delete_browser_cookie(COOKIE)) == attributes(set_browser_cookie(COOKIE, VALUE, 1))
    assert b"=; " in delete_cookie(COOKIE)
    assert b"Max-Age=0" in delete_cookie(COOKIE)


def test_binding_cookie_comes_back_from_another_site() -> None:
    strict = replace(COOKIE, same_site=SameSite.STRICT)
    assert b"SameSite=Lax" in set_browser_cookie(strict, VALUE, 900)
    assert browser_cookie_name(COOKIE) == "__Host-akoya-browser"


def test_session_id_that_is_issued_is_accepted() -> None:
    value = new_token()
    pair = set_cookie(COOKIE, value, 1).partition(b";")[0]
    assert read_cookie(pair, NAME) == value
