"""Signer and verifier against independent libraries, in both directions."""

from __future__ import annotations

import base64
import datetime
import json
import time
from dataclasses import dataclass
from typing import Any

import http_message_signatures as others
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey

import akoya_verify as v
from akoya_gateway.config.model import SigningAlgorithm, SigningScheme
from akoya_gateway.signing import signer
from akoya_gateway.signing.keys import load_schedule
from tests.support.signing import FULL, KEYS, signing

ALGORITHMS = {
    "ed25519": others.algorithms.ED25519,
    "ecdsa-p256-sha256": others.algorithms.ECDSA_P256_SHA256,
    "hmac-sha256": others.algorithms.HMAC_SHA256,
}


@dataclass
class Request:
    """The attributes of a request that the library reads."""

    method: str
    url: str
    headers: dict[str, str]


@pytest.fixture(params=sorted(KEYS))
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def private_of(algorithm: str) -> Any:
    return load_schedule(SigningAlgorithm(algorithm), signing(algorithm).keys).keys[0].private


def resolver(algorithm: str) -> Any:
    private, kid = private_of(algorithm), KEYS[algorithm]["kid"]
    public = private if isinstance(private, bytes) else private.public_key()
    return others.MappingKeyResolver(public_keys={kid: public}, private_keys={kid: private})


def our_keys(algorithm: str) -> dict[str, v.Key]:
    key = KEYS[algorithm]
    known = v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
    return {key["kid"]: known}


def test_independent_verifier_accepts_the_gateways_signature(algorithm: str) -> None:
    made = signer(signing(algorithm), "https://a", "http://b").prepare(FULL)
    headers = made.headers(b"POST", b"app.example.com:8080", b"/a%20b/c", b"x=%2F&y", time.time())
    request = Request(
        "POST",
        "http://app.example.com:8080/a%20b/c?x=%2F&y",
        {"host": "app.example.com:8080", **{name.decode(): value.decode() for name, value in headers}},
    )
    verifier = others.HTTPMessageVerifier(signature_algorithm=ALGORITHMS[algorithm], key_resolver=resolver(algorithm))
    verified = verifier.verify(request, max_age=datetime.timedelta(minutes=5), expect_tag="akoya-gateway")
    assert [result.label for result in verified] == ["akoya"]

    for name in ("akoya-id-token", "akoya-owner", "akoya-connections"):
        forged = Request(request.method, request.url, {**request.headers, name: request.headers[name] + "x"})
        with pytest.raises(others.InvalidSignature):
            verifier.verify(forged, max_age=datetime.timedelta(minutes=5), expect_tag="akoya-gateway")


def test_signature_of_an_independent_signer_verifies(algorithm: str) -> None:
    request = Request("GET", "https://app.example.com/a%20b?x=%2F", {"Akoya-Owner": "o1", "Akoya-Connector": "mikomo"})
    now = datetime.datetime.now(tz=datetime.UTC)
    others.HTTPMessageSigner(signature_algorithm=ALGORITHMS[algorithm], key_resolver=resolver(algorithm)).sign(
        request,
        key_id=KEYS[algorithm]["kid"],
        created=now,
        expires=now + datetime.timedelta(seconds=60),
        nonce="n1",
        label="akoya",
        tag="akoya-gateway",
        covered_component_ids=("akoya-owner", "akoya-connector", "@method", "@authority", "@path", "@query"),
    )
    headers = list(request.headers.items())
    verified = v.verify("GET", "app.example.com", "/a%20b", "x=%2F", headers, our_keys(algorithm), time.time())
    assert (verified.owner, verified.connector, verified.nonce) == ("o1", "mikomo", "n1")
    with pytest.raises(v.NotVerified):
        v.verify("GET", "app.example.com", "/a%20b", "x=%2f", headers, our_keys(algorithm), time.time())


def test_independent_jose_library_accepts_the_gateways_assertion(algorithm: str) -> None:
    made = signer(signing(algorithm, SigningScheme.JWT), "https://app", "http://up").prepare(FULL)
    ((name, token),) = made.headers(b"GET", b"h", b"/", b"", time.time())
    assert name == b"akoya-assertion"
    key = KEYS[algorithm]
    known: Any = (
        OctKey.import_key(key["secret"], {"kid": key["kid"]})
        if "secret" in key
        else KeySet.import_key_set({"keys": [key["public_jwk"]]})
    )
    with pytest.warns() if algorithm == "ed25519" else _no_warning():
        decoded = jwt.decode(token.decode(), known, algorithms=["EdDSA", "ES256", "HS256"])
    assert decoded.header["typ"] == "akoya-assertion+jwt"
    assert decoded.claims["iss"] == "https://app"
    assert decoded.claims["aud"] == "http://up"
    assert decoded.claims["sub"] == FULL.owner
    assert decoded.claims["rule"] == FULL.rule


class _no_warning:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_assertion_of_an_independent_signer_verifies() -> None:
    from joserfc.jwk import ECKey

    key = KEYS["ecdsa-p256-sha256"]
    now = int(time.time())
    claims = {"iss": "https://a", "aud": ["x", "http://up"], "sub": "o1", "jti": "j", "iat": now, "exp": now + 60}
    header = {"alg": "ES256", "kid": "ec", "typ": "akoya-assertion+jwt"}
    token = jwt.encode(header, claims, ECKey.import_key(key["private_jwk"]))
    verified = v.verify_assertion(
        [("Akoya-Assertion", token)], our_keys("ecdsa-p256-sha256"), "https://a", "http://up", now
    )
    assert (verified.owner, verified.nonce, verified.connections) == ("o1", "j", ())


SIGNED = {
    algorithm: signer(signing(algorithm), "https://a", "http://b")
    .prepare(FULL)
    .headers(b"GET", b"app.example.com", b"/api/balances", b"a=1", 1_790_000_000.0)
    for algorithm in KEYS
}


def parts_of(algorithm: str) -> list[bytes]:
    return [b"GET", b"app.example.com", b"/api/balances", b"a=1", *(value for _, value in SIGNED[algorithm])]


def verify_parts(algorithm: str, parts: list[bytes]) -> v.Verified:
    method, authority, path, query = (part.decode("latin-1") for part in parts[:4])
    names = [name for name, _ in SIGNED[algorithm]]
    headers = list(zip(names, parts[4:], strict=True))
    return v.verify(method, authority, path, query, headers, our_keys(algorithm), 1_790_000_000.0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_single_byte_changed_in_any_covered_part_is_refused(data: Any) -> None:
    algorithm = data.draw(st.sampled_from(sorted(KEYS)))
    parts = parts_of(algorithm)
    assert verify_parts(algorithm, parts).owner == FULL.owner
    which = data.draw(st.integers(0, len(parts) - 1))
    at = data.draw(st.integers(0, len(parts[which]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != parts[which][at]))
    changed = parts[which][:at] + bytes([byte]) + parts[which][at + 1 :]
    if which == 1 and changed.lower() == parts[which].lower():
        return  # Hosts are case-insensitive.
    parts[which] = changed
    with pytest.raises(v.NotVerified):
        verify_parts(algorithm, parts)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_part_cut_short_is_refused(data: Any) -> None:
    algorithm = data.draw(st.sampled_from(sorted(KEYS)))
    parts = parts_of(algorithm)
    which = data.draw(st.integers(0, len(parts) - 1))
    parts[which] = parts[which][: data.draw(st.integers(0, len(parts[which]) - 1))]
    with pytest.raises(v.NotVerified):
        verify_parts(algorithm, parts)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=60)), max_size=6), st.text(max_size=60))
def test_hostile_headers_raise_only_not_verified(headers: list[tuple[str, str]], value: str) -> None:
    lines = [*headers, ("signature-input", value), ("signature", value), ("akoya-assertion", value)]
    with pytest.raises(v.NotVerified):
        v.verify("GET", "h", "/", "", lines, {}, 0.0)
    with pytest.raises(v.NotVerified):
        v.verify_assertion(lines, {}, "i", "a", 0.0)


# Created once: signing is randomized, and Hypothesis needs the same data for the same choices.
ASSERTIONS = {
    algorithm: signer(signing(algorithm, SigningScheme.JWT), "i", "a", clock=lambda: 1_790_000_000.0)
    .prepare(FULL)
    .headers(b"GET", b"h", b"/", b"", 1_790_000_000.0)[0][1]
    for algorithm in KEYS
}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_assertion_is_refused(data: Any) -> None:
    now = 1_790_000_000.0
    algorithm = data.draw(st.sampled_from(sorted(KEYS)))
    token = ASSERTIONS[algorithm]
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.sampled_from(b"AZaz09-_.=+/ ").filter(lambda value: value != token[at]))
    changed = token[:at] + bytes([byte]) + token[at + 1 :]
    assert v.verify_assertion([(b"akoya-assertion", token)], our_keys(algorithm), "i", "a", now)
    with pytest.raises(v.NotVerified):
        v.verify_assertion([(b"akoya-assertion", changed)], our_keys(algorithm), "i", "a", now)


def test_keys_are_read_from_pem_jwk_and_thumbprints_agree() -> None:
    for algorithm in ("ed25519", "ecdsa-p256-sha256"):
        key = KEYS[algorithm]
        private = private_of(algorithm)
        assert isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey)
        nameless = {name: value for name, value in key["public_jwk"].items() if name != "kid"}
        from_pem, from_jwk = v.pem_key(key["public_pem"]), v.jwk_key(nameless)
        assert from_pem.id == from_jwk.id
        assert len(base64.urlsafe_b64decode(from_pem.id + "=")) == 32
        assert json.loads(json.dumps(key["public_jwk"]))["kid"] == v.jwk_key(key["public_jwk"]).id


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def test_signature_with_another_base64_spelling_is_refused(algorithm: str) -> None:
    """Setting unused base64 bits spells the same octets differently (RFC 9651 section 4.2.7, RFC 4648 section 3.5)."""
    parts = parts_of(algorithm)
    text = parts[-1].decode()
    end = len(text.rstrip("=:")) - 1
    loose = text[:end] + ALPHABET[ALPHABET.index(text[end]) + 1] + text[end + 1 :]
    assert base64.b64decode(loose[7:-1]) == base64.b64decode(text[7:-1])
    parts[-1] = loose.encode()
    with pytest.raises(v.NotVerified, match="canonical"):
        verify_parts(algorithm, parts)


def test_assertion_with_another_base64_spelling_is_refused(algorithm: str) -> None:
    now = 1_790_000_000.0
    made = signer(signing(algorithm, SigningScheme.JWT), "i", "a", clock=lambda: now).prepare(FULL)
    ((_, token),) = made.headers(b"GET", b"h", b"/", b"", now)
    alphabet = ALPHABET.replace("+/", "-_")
    text = token.decode()
    loose = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    with pytest.raises(v.NotVerified, match="canonical"):
        v.verify_assertion([("akoya-assertion", loose)], our_keys(algorithm), "i", "a", now)


@pytest.mark.parametrize("digest", ["", "md5=:AAAA:", "sha-256", "sha-256=AAAA", "sha-256=:AAAA:", "nonsense,"])
def test_empty_digest_matches_no_body(digest: str) -> None:
    assert not v.body_matches(digest, b"")
