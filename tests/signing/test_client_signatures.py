"""Signatures of clients beside the gateway's: every verifier accepts those that the gateway passes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import akoya_verify as v
from akoya_gateway.signing import signer
from akoya_gateway.signing.client_signatures import MAX_BYTES
from akoya_gateway.signing.header_names import strip
from tests.support.client_signatures import PASSED, REFUSED, Fields, left_of
from tests.support.signing import FULL, KEYS, signing

NOW = 1_790_000_000
SIGNED = signer(signing("hmac-sha256"), "https://a", "http://b").prepare(FULL).headers(b"GET", b"h", b"/", b"", NOW)
VERIFIER_KEYS = v.keys_of([v.secret_key("mac", KEYS["hmac-sha256"]["secret"])])


def verified_beside(fields: Fields) -> v.Verified:
    """Verify the gateway's request with what it leaves of the client's signatures."""
    return v.verify("GET", "h", "/", "", [*strip(fields), *SIGNED], VERIFIER_KEYS, NOW)


@pytest.mark.parametrize(("name", "fields", "left"), PASSED, ids=[name for name, _, _ in PASSED])
def test_valid_signature_of_a_client_is_passed_in_canonical_form(name: str, fields: Fields, left: Fields) -> None:
    assert strip([(b"host", b"h"), *fields, (b"accept", b"*")]) == [(b"host", b"h"), (b"accept", b"*"), *left]
    assert verified_beside(fields).owner == FULL.owner


@pytest.mark.parametrize(("name", "fields"), REFUSED, ids=[name for name, _ in REFUSED])
def test_signature_of_a_client_that_a_verifier_could_refuse_is_removed(name: str, fields: Fields) -> None:
    assert strip([(b"host", b"h"), *fields]) == [(b"host", b"h")]
    assert verified_beside(fields).owner == FULL.owner


def test_signature_of_a_client_that_is_too_long_is_removed() -> None:
    longest = b'sig=();x="%b"' % (b"x" * (MAX_BYTES - len(b'sig=();x=""')))
    assert len(strip([(b"signature-input", longest), (b"signature", b"sig=:AA==:")])) == 2
    assert strip([(b"signature-input", longest + b" "), (b"signature", b"sig=:AA==:")]) == []


pieces = st.sampled_from(
    [
        "a", "b", "akoya", "=", ",", ", ", ";", "; ", " ", "(", ")", '"x"', '"', '\\"', ":AA==:", ":AB==:", ":A:", ":", "1",
        "-1", "1.5", "1.", "@1", "?1", "?2", "tok/en", "*", '%"%c3%bc"', "\t", "A", ".", "-", "_", "999999999999999", "0000",
        "=(", "=()", "=::", "\x80", "\x00",
    ]
)  # fmt: skip
values = st.lists(pieces, max_size=14).map("".join)
labels = st.lists(st.sampled_from(["a", "b", "*c", "akoya"]), min_size=1, max_size=3)
lists = st.just('("@method" "x")') | st.builds("({}){}".format, values, values)
octets = st.sampled_from(
    [":AA==:", "::", ":AAAA:", ":AB==:", ":AA=:", ":A===:", ": :", ":AA==:;p", '"x"', "1", "(:AA==:)"]
)
bare = st.sampled_from(["1", "-0", "1.50", "00.1", "999999999999999", "99999999999.999", "123456789012.3", "tok", '"q,;("', ":AAAA:",
                        "?0", "@1", '%"a"', "12345678901234567", "1.2345", '"é"', "-", "", "*"])  # fmt: skip


@st.composite
def nearly_valid(draw: st.DrawFn) -> Fields:
    """Return the two fields as a client could send them: mostly valid, on one line or more, or with one piece changed."""
    named = draw(labels)
    parameter = st.builds(";{}={}".format, st.sampled_from(["created", "x", "x", "*y", "Z"]), bare)
    ends = [draw(st.lists(parameter, max_size=2).map("".join)) for _ in named]
    inputs = [f"{label}={draw(lists)}{end}" for label, end in zip(named, ends, strict=True)]
    signatures = [f"{label}={draw(st.just(':AAAA:') | octets)}" for label in draw(st.just(named) | labels)]
    fields: Fields = []
    for name, members in ((b"signature-input", inputs), (b"signature", signatures)):
        text = draw(st.sampled_from([", ", ",", " ,\t", ", , "])).join(members)
        at = draw(st.integers(0, len(text)))
        text = draw(st.sampled_from([text, text, text, text[:at], text[:at] + draw(pieces) + text[at:]]))
        lines = text.split(",") if draw(st.booleans()) else [text]
        fields += [(name, line.encode("latin-1")) for line in lines]
    return draw(st.permutations(fields)) if draw(st.booleans()) else fields


@settings(max_examples=250, deadline=None)
@given(nearly_valid())
def test_gateways_signature_verifies_beside_any_signature_of_a_client(fields: Fields) -> None:
    assert verified_beside(fields).owner == FULL.owner
    left = left_of(fields)
    assert strip(left) == left
    assert not [value for _, value in left if b"akoya" in value.replace(b'"', b"").split(b"=")[0]]


@settings(max_examples=150, deadline=None)
@given(values, values)
def test_gateways_signature_verifies_beside_any_text(signature: str, signature_input: str) -> None:
    fields = [(b"signature", signature.encode("latin-1")), (b"signature-input", signature_input.encode("latin-1"))]
    assert verified_beside(fields).owner == FULL.owner
