from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import akoya_verify as v
from akoya_gateway.secret import Secret
from akoya_gateway.signing import ConnectionClaim, UpstreamClaims, header_values, signer
from akoya_gateway.signing.content_digest import sha256
from akoya_gateway.signing.message_signatures import UnsignableRequest, authority, nonces
from tests.support.signing import FULL, KEYS, MESSAGES, NOW, signing

VECTOR_NONCE = bytes.fromhex("00112233445566778899aabbccddeeff")


def prepared(algorithm: str, claims: UpstreamClaims = FULL) -> Any:
    made = signer(signing(algorithm), "https://app.example.com", "http://up", clock=lambda: NOW)
    made._nonces = nonces(lambda size: VECTOR_NONCE)  # type: ignore[attr-defined]
    return made.prepare(claims)


def key_of(algorithm: str) -> dict[str, v.Key]:
    key = KEYS[algorithm]
    known = v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
    return {key["kid"]: known}


@pytest.mark.parametrize("name", ["all headers", "raw path, query and port"])
def test_signer_writes_what_the_vectors_expect(algorithm: str, name: str) -> None:
    case = next(one for one in MESSAGES["cases"] if one["name"] == f"{algorithm}: {name}")
    to = case["request"]
    made = prepared(algorithm).headers(
        to["method"].encode(), to["authority"].encode(), to["path"].encode(), to["query"].encode(), NOW
    )
    expected = [(n.encode(), value.encode()) for n, value in to["headers"] if n != "host"]
    assert [name for name, _ in made] == [name for name, _ in expected]
    if algorithm == "ecdsa-p256-sha256":  # ECDSA signatures are randomized: everything but the signature is equal.
        assert made[:-1] == expected[:-1]
    else:
        assert made == expected


def test_nonces_never_repeat() -> None:
    made = signer(signing("hmac-sha256"), "https://app.example.com", "http://up", clock=lambda: NOW).prepare(FULL)
    nonces = {made.headers(b"GET", b"a", b"/", b"", NOW)[-2][1].partition(b'nonce="')[2][:33] for _ in range(500)}
    assert len(nonces) == 500
    assert all(len(nonce.rstrip(b'"')) == 32 for nonce in nonces)


def test_signature_of_every_algorithm_verifies(algorithm: str) -> None:
    made = prepared(algorithm).headers(b"GET", b"app.example.com", b"/x", b"", NOW)
    verified = v.verify("GET", "app.example.com", "/x", "", made, key_of(algorithm), NOW)
    assert verified.owner == FULL.owner
    assert verified.id_token == FULL.bearer.reveal()  # type: ignore[union-attr]


def test_empty_path_and_query_are_signed_as_rfc_9421_requires(algorithm: str) -> None:
    made = prepared(algorithm).headers(b"OPTIONS", b"h", b"", b"", NOW)
    assert v.verify("OPTIONS", "h", "/", "", made, key_of(algorithm), NOW)


def test_covered_content_digest_is_sent_and_verifies(algorithm: str) -> None:
    digest = sha256(b"body")
    made = prepared(algorithm).headers(b"POST", b"h", b"/", b"", NOW, content_digest=digest)
    assert (b"content-digest", digest) in made
    verified = v.verify("POST", "h", "/", "", made, key_of(algorithm), NOW)
    assert verified.content_digest is not None
    assert v.body_matches(verified.content_digest, b"body")
    assert not v.body_matches(verified.content_digest, b"bodx")


def test_every_signature_has_its_own_nonce() -> None:
    one = signer(signing("hmac-sha256"), "https://a", "http://b", clock=lambda: NOW).prepare(FULL)
    seen = {one.headers(b"GET", b"h", b"/", b"", NOW)[-2] for _ in range(50)}
    assert len(seen) == 50


def test_header_without_a_value_is_left_out() -> None:
    made = prepared("hmac-sha256", UpstreamClaims(owner="o", connections=(), rule="r")).headers(
        b"GET", b"h", b"/", b"", NOW
    )
    assert [name for name, _ in made] == [b"akoya-owner", b"akoya-interaction-type", b"signature-input", b"signature"]


def test_size_estimate_is_never_less_than_what_is_sent(algorithm: str) -> None:
    one = prepared(algorithm)
    made = one.headers(b"GET", b"h", b"/", b"", NOW)
    sent = sum(len(name) + len(value) + 4 for name, value in made)
    assert sent <= one.size <= sent + 64


@pytest.mark.parametrize(
    "bad",
    [
        replace(FULL, bearer=Secret("a\r\nakoya-owner: evil")),
        replace(FULL, bearer=Secret("tökén")),
        replace(FULL, connector="mikomo\n"),
        replace(FULL, environment="sand\tbox"),
        replace(FULL, scope=("openid", "a  b")),
        replace(FULL, scope=(" ", "x")),
        replace(FULL, connections=(ConnectionClaim("Mikomo Bank", "live", 1, "g_1"),)),
        replace(FULL, connections=(ConnectionClaim("mikomo", "live;x=1, evil=live", 1, "g_1"),)),
    ],
)
def test_value_that_no_header_can_carry_is_refused_and_not_shown(bad: UpstreamClaims, algorithm: str) -> None:
    with pytest.raises(header_values.UnencodableHeaderValue) as refused:
        prepared(algorithm, bad)
    assert "evil" not in str(refused.value).split("Akoya-Connections")[0]
    assert "tökén" not in str(refused.value)


@pytest.mark.parametrize("owner", ["jürgen 50%", "a\r\nb", '"quoted"', "日本", " lead", "%41"])
def test_owner_of_any_characters_arrives_unchanged(owner: str, algorithm: str) -> None:
    made = prepared(algorithm, replace(FULL, owner=owner)).headers(b"GET", b"h", b"/", b"", NOW)
    assert v.verify("GET", "h", "/", "", made, key_of(algorithm), NOW).owner == owner


@pytest.mark.parametrize(
    ("method", "host", "path", "query"),
    [
        (b"GET", b"h", b"/\n", b""),
        (b"GET", b"h", b"/", "ü".encode()),
        (b"GET", b"h\n", b"/", b""),
        (b"G\nET", b"h", b"/", b""),
        (b"GET", b"h", "/ü".encode("latin-1"), b""),
        (b"GET", b"h", b'/\n"@query": ?', b""),
    ],
)
def test_request_line_without_a_signature_base_is_refused(
    method: bytes, host: bytes, path: bytes, query: bytes, algorithm: str
) -> None:
    with pytest.raises(UnsignableRequest):
        prepared(algorithm).headers(method, host, path, query, NOW)


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        (b"App.Example.com", b"https", b"app.example.com"),
        (b"app:443", b"https", b"app"),
        (b"app:443", b"http", b"app:443"),
        (b"app:80", b"http", b"app"),
        (b"app:80", b"ws", b"app"),
        (b"[::1]:8080", b"http", b"[::1]:8080"),
        (b"app:8080", b"http", b"app:8080"),
    ],
)
def test_authority_is_lower_case_without_the_default_port(host: bytes, scheme: bytes, expected: bytes) -> None:
    assert authority(host, scheme) == expected
    assert v.authority_of(host.decode(), scheme.decode()) == expected.decode()


def test_parameters_are_those_of_the_contract() -> None:
    value = dict(prepared("ed25519").headers(b"GET", b"h", b"/", b"", NOW))[b"signature-input"].decode()
    assert re.fullmatch(
        r'akoya=\(.*"@method" "@authority" "@path" "@query"\)'
        r';created=1790000000;expires=1790000060;nonce="[0-9a-f]{32}";keyid="ed";alg="ed25519";tag="akoya-gateway"',
        value,
    )
