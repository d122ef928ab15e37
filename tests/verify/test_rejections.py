"""Requests that no honest gateway sends and a verifier must reject. Each case tests one check of its own."""

from __future__ import annotations

import base64
import copy
import hmac
import json
from typing import Any

import pytest

import akoya_verify as v
from tests.verify.vectors import ASSERTIONS, MESSAGES, keys_in, verify_message

WHOLE = next(case for case in MESSAGES["cases"] if case["name"] == "ed25519: all headers")
SECRET = next(key["secret"] for key in ASSERTIONS["keys"] if "secret" in key)
MAC = next(key["kid"] for key in ASSERTIONS["keys"] if "secret" in key)


def changed(name: str, old: str, new: str) -> dict[str, Any]:
    case: dict[str, Any] = copy.deepcopy(WHOLE)
    for line in case["request"]["headers"]:
        if line[0] == name:
            assert old in line[1]
            line[1] = line[1].replace(old, new)
    return case


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x80"])
def test_value_that_would_add_a_line_to_the_signature_base_is_refused(end: str) -> None:
    with pytest.raises(v.NotVerified) as refused:
        verify_message(changed("akoya-connector", "mikomo", f'mikomo{end}"akoya-scope": all'))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize(
    "component", ['"@scheme"', '"@target-uri"', '"@query-param";name="x"', "scope", "1", "?1", ":AAAA:"]
)
def test_component_that_the_gateway_does_not_sign_is_refused(component: str) -> None:
    with pytest.raises(v.NotVerified) as refused:
        verify_message(changed("signature-input", '"@method"', f'"@method" {component}'))
    assert refused.value.reason == "malformed"


def assertion(header: dict[str, Any], claims: Any) -> str:
    """Sign any content with the shared secret."""
    key = SECRET.encode()
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = base64.urlsafe_b64encode(hmac.digest(key, b".".join(parts), "sha256")).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def verdict(header: dict[str, Any], claims: Any, **more: Any) -> v.Verified:
    token = assertion(header, claims)
    return v.verify_assertion(
        [("Akoya-Assertion", token)], keys_in(ASSERTIONS), "https://i", "https://a", 1000.0, **more
    )


HEADER = {"alg": "HS256", "kid": MAC, "typ": "akoya-assertion+jwt"}
CLAIMS = {"iss": "https://i", "aud": "https://a", "sub": "o", "jti": "j", "iat": 990, "exp": 1050}


def test_base_assertion_of_the_next_tests_verifies() -> None:
    assert verdict(HEADER, CLAIMS).owner == "o"


@pytest.mark.parametrize("claims", [[], "x", 1, None])
def test_claims_other_than_an_object_are_refused(claims: Any) -> None:
    with pytest.raises(v.NotVerified, match="no JSON object"):
        verdict(HEADER, claims)


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize("value", [None, True, "990", -1, 1e12, [990]])
def test_invalid_times_are_refused(name: str, value: Any) -> None:
    with pytest.raises(v.NotVerified, match="no iat and exp"):
        verdict(HEADER, {**CLAIMS, name: value})


@pytest.mark.parametrize("kid", [None, "", 1, ["mac"], {}])
def test_invalid_key_id_is_refused(kid: Any) -> None:
    with pytest.raises(v.NotVerified, match="no kid"):
        verdict({**HEADER, "kid": kid}, CLAIMS)


@pytest.mark.parametrize("jti", [None, "", 7])
def test_replay_cache_without_a_nonce_raises(jti: Any) -> None:
    with pytest.raises(v.NotVerified):
        verdict(HEADER, {**CLAIMS, "jti": jti}, replay=v.ReplayCache())


def test_replay_cache_accepts_each_nonce_once_and_refuses_when_full() -> None:
    cache = v.ReplayCache(capacity=2)
    for nonce, reason in [
        (None, "no-nonce"),
        ("", "no-nonce"),
        ("a", None),
        ("a", "replayed"),
        ("b", None),
        ("c", "replay-cache-full"),
    ]:
        if reason is None:
            cache.admit(nonce, 60.0, 0.0)
            continue
        with pytest.raises(v.NotVerified) as refused:
            cache.admit(nonce, 60.0, 0.0)
        assert refused.value.reason == reason
    cache.admit("c", 120.0, 60.0)


@pytest.mark.parametrize(
    "secret", ["", "x" * 31, b"x" * 31, f"  {'x' * 31}\n", "-----BEGIN PUBLIC KEY-----\n" + "A" * 40]
)
def test_shared_secret_that_is_short_or_a_public_key_is_refused(secret: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|PEM"):
        v.secret_key("k", secret)


ED = next(key["public_jwk"] for key in MESSAGES["keys"] if key["kid"] == "ed")
EC = next(key["public_jwk"] for key in MESSAGES["keys"] if key["kid"] == "ec")


@pytest.mark.parametrize(
    "jwk",
    [{**ED, "kty": "EC"}, {**ED, "crv": "X25519"}, {**ED, "crv": "P-256"}, {**EC, "kty": "OKP"}, {**EC, "crv": "P-384"}, {**EC, "crv": "Ed25519"},
     {**ED, "use": "enc"}, {**ED, "alg": "HS256"}, {**EC, "alg": "ES384"}, {**ED, "x": "AA"}, {**EC, "y": EC["x"]},
     {"kty": "oct", "k": "AAAA", "kid": "k"}, {}],
)  # fmt: skip
def test_jwk_for_another_purpose_is_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        v.jwk_key(jwk)
