from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.signing.header_names import PASSED_NAMES, is_gateway_header, strip

OURS = [*PASSED_NAMES, b"akoya-assertion", b"akoya-anything"]


def spellings(name: bytes) -> list[bytes]:
    words = name.split(b"-")
    cased = [name.lower(), name.upper(), name.title(), b"aKoYa" + name[5:]]
    joined = [sign.join(words) for sign in (b"_", b".", b"-")]
    mixed = [words[0] + a + b.join(words[1:]) for a, b in itertools.product((b"_", b".", b"-"), repeat=2)]
    return cased + joined + mixed + [one.upper() for one in joined + mixed]


@pytest.mark.parametrize("name", OURS)
def test_every_spelling_of_every_name_is_removed(name: bytes) -> None:
    for spelling in spellings(name):
        assert strip([(b"host", b"h"), (spelling, b"evil"), (b"accept", b"*")]) == [(b"host", b"h"), (b"accept", b"*")]
        assert is_gateway_header(spelling)


@pytest.mark.parametrize("name", [*OURS, b"akoya-", b"AKOYA_", b"Akoya_Owner", b"signature_input"])
@pytest.mark.parametrize("value", [b"", b" ", b"x"])
def test_gateway_headers_are_removed_whatever_their_value(name: bytes, value: bytes) -> None:
    assert strip([(name, value), (b"host", b"h")]) == [(b"host", b"h")]


@pytest.mark.parametrize(
    "name", [b"host", b"akoyafoo", b"x-akoya-owner", b"signatures", b"cookie2", b"connection2", b"a"]
)
def test_other_headers_stay_untouched(name: bytes) -> None:
    header = (name, b"akoya=1, Akoya-Owner")
    assert strip([header]) == [header]
    assert not is_gateway_header(name)


@pytest.mark.parametrize("name", [b"signature_input", b"Signature.Input", b"SIGNATURE_INPUT", b"Signature+Input"])
def test_alias_of_a_signature_field_is_dropped_whole(name: bytes) -> None:
    assert strip([(name, b"sig1=1")]) == []


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"keep-alive, Akoya-Owner", b"keep-alive"),
        (b"AKOYA_owner", None),
        (b"close,signature , Signature-Input,x", b"close, x"),
        (b"content-digest, upgrade", b"upgrade"),
        (b"keep-alive", b"keep-alive"),
        (b"Upgrade, HTTP2-Settings", b"Upgrade, HTTP2-Settings"),
        (b"akoya.id.token, content-length", b"content-length"),
        (b"close, X-Request-Id", b"close"),
        (b"X_Request_Id, X-Request", b"X-Request"),
    ],
)
def test_connection_header_cannot_remove_gateway_headers(value: bytes, left: bytes | None) -> None:
    assert strip([(b"connection", value)]) == ([] if left is None else [(b"connection", left)])


def test_cookies_go_through_the_given_function() -> None:
    headers = [(b"cookie", b"a=1; __Host-akoya=x"), (b"Cookie", b"__Host-akoya=y"), (b"host", b"h")]

    def without_ours(value: bytes) -> bytes:
        return b"; ".join(one for one in value.split(b"; ") if not one.startswith(b"__Host-akoya="))

    assert strip(headers, without_ours) == [(b"cookie", b"a=1"), (b"host", b"h")]
    assert strip(headers) == headers


def test_trailers_lose_signature_fields_altogether() -> None:
    assert is_gateway_header(b"signature")
    assert is_gateway_header(b"Signature_Input")
    assert not is_gateway_header(b"x-checksum")


names = st.binary(max_size=24) | st.sampled_from(OURS).flatmap(lambda name: st.sampled_from(spellings(name)))


@given(st.lists(st.tuples(names, st.binary(max_size=40)), max_size=8))
def test_header_that_normalizes_to_a_gateway_header_is_removed(headers: list[tuple[bytes, bytes]]) -> None:
    for name, _ in strip(headers):
        folded = name.lower().replace(b"_", b"-").replace(b".", b"-")
        assert not folded.startswith(b"akoya-")
        assert folded not in {b"signature", b"signature-input"} or name == folded
