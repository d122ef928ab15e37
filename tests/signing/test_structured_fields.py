"""The dictionaries that the gateway writes and the parser of akoya-verify, against an independent parser."""

from __future__ import annotations

from typing import Any, cast

import http_sf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.signing.claims import ConnectionClaim
from akoya_gateway.signing.structured_fields import connections
from akoya_verify.result import NotVerified
from akoya_verify.structured_fields import InnerList, parse_dictionary, serialize_inner_list


def theirs(text: str) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", http_sf.parse(text.encode("latin-1"), tltype="dictionary"))
    except ValueError:
        return None


pieces = st.sampled_from(
    [
        "a", "b", "akoya", "=", ",", ", ", ";", "; ", " ", "(", ")", '"x"', '"', '\\"', ":AA==:", ":A:", ":", "1", "-1",
        "1.5", "1.", "@1", "?1", "?2", "tok/en", "*", '%"%c3%bc"', "\t", "A", ".", "-", "_", "999999999999999", "0000",
    ]
)  # fmt: skip
texts = st.lists(pieces, max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(texts)
def test_dictionary_read_by_the_verifier_is_the_same_for_an_independent_parser(text: str) -> None:
    try:
        found = parse_dictionary(text, "x")
    except NotVerified:
        return
    expected = theirs(text)
    assert expected is not None, text
    assert list(found) == list(expected)
    for key, member in found.items():
        if isinstance(member, InnerList):
            again = parse_dictionary(f"{key}={serialize_inner_list(member)}", "x")
            assert again[key] == member


@pytest.mark.parametrize(
    "text",
    [
        'a=("x" "y");b;c=?0',
        "a",
        "a;b=1",
        "a=1.5, b=:AA==:",
        'a="q\\"uo\\\\te"',
        "a=tok/en:x",
        "a=(1 2), b=()",
    ],
)
def test_valid_dictionary_is_parsed(text: str) -> None:
    assert theirs(text) is not None
    assert list(parse_dictionary(text, "x")) == list(theirs(text) or ())


@pytest.mark.parametrize(
    "text", ["a=@5", 'a=%"x%c3%bc"', "a;b;b", "a, a", "a=:AB==:", "a=1234567890123456", "a=1.2345"]
)
def test_dictionary_that_other_parsers_may_refuse_or_take_for_another_is_refused(text: str) -> None:
    with pytest.raises(NotVerified):
        parse_dictionary(text, "x")


logins = st.builds(
    ConnectionClaim,
    st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True),
    st.sampled_from(["live", "uncertain", "needs_reconnect", "revoked"]),
    st.integers(0, 2_000_000_000),
    st.from_regex(r"g_[A-Za-z0-9_-]{22}", fullmatch=True),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(logins, max_size=8))
def test_connections_are_read_back_by_an_independent_parser(passed: list[ConnectionClaim]) -> None:
    parsed = theirs(connections(passed)) or {}
    read = [
        (connector, str(state), parameters["expires"], parameters["id"])
        for connector, (value, own) in parsed.items()
        for state, parameters in (value if isinstance(value, list) else [(value, own)])
    ]
    assert sorted(read) == sorted((one.connector, one.state, one.expires_at, one.id) for one in passed)
