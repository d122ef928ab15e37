from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from akoya_gateway.oauth.jwks import MAX_DOCUMENT_BYTES, UnreadableKeys, read_keys
from akoya_gateway.oauth.roca import has_roca_fingerprint
from tests.support.oauth_values import ec_key, jwks, key_set, okp_key, rsa_key


def read(*members: Any) -> Any:
    return read_keys(json.dumps({"keys": list(members)}).encode())


def good() -> dict[str, Any]:
    return dict(rsa_key().as_dict(private=False))


def test_algorithms_follow_from_type_curve_and_alg() -> None:
    keys = key_set(rsa_key(), ec_key(), ec_key("P-384", "e2"), ec_key("P-521", "e3"), okp_key())
    assert [sorted(key.algorithms) for key in keys.keys] == [
        ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
        ["ES256"],
        ["ES384"],
        ["ES512"],
        ["Ed25519", "EdDSA"],
    ]
    assert key_set(rsa_key(), alg="PS384").keys[0].algorithms == {"PS384"}


def small_rsa() -> dict[str, Any]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {
        "kty": "RSA",
        "e": "AQAB",
        "n": base64.urlsafe_b64encode(numbers.n.to_bytes(128, "big")).decode().rstrip("="),
    }


@pytest.mark.parametrize(
    "member",
    [
        None, 7, "x", [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 1, "e": "AQAB"},
        {"kty": "RSA", "n": "!!!", "e": "AQAB"}, {"kty": "RSA", "n": "A" * 342, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "EC", "crv": "P-256"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "oct", "k": "AAAA"}, OctKey.generate_key(256).as_dict(), {"kty": "PQC", "x": "new"},
        {**good(), "use": "enc"}, {**good(), "use": 7}, {**good(), "key_ops": ["encrypt"]}, {**good(), "key_ops": "verify"},
        {**good(), "alg": "HS256"}, {**good(), "alg": "none"}, {**good(), "alg": "RSA-OAEP"}, {**good(), "alg": 7},
        {**good(), "e": "AQAB" * 100}, {**good(), "n": good()["n"] * 5}, {**good(), "n": "f" + good()["n"][1:]},
        small_rsa(), ECKey.generate_key("secp256k1").as_dict(private=False),
        OKPKey.generate_key("X25519").as_dict(private=False), OKPKey.generate_key("Ed448").as_dict(private=False),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_unfit_member_is_skipped_without_harm_to_the_others(member: Any) -> None:
    keys = read(member, ec_key().as_dict(private=False), member)
    assert [key.kid for key in keys.keys] == ["e1"]
    assert keys.skipped == 2
    with pytest.raises(UnreadableKeys, match="no usable key"):
        read(member)


@pytest.mark.parametrize(
    ("kid", "read_as"),
    [(7, "7"), ("7", "7"), ("a b", "a b"), (7.5, None), (True, None), (["r1"], None), ("k" * 513, None)],
)
def test_key_is_used_whatever_its_kid_is(kid: Any, read_as: str | None) -> None:
    """`kid` is a hint (RFC 7515 section 4.1.4). Without this key no token could be verified."""
    keys = read({**good(), "kid": kid})
    assert [key.kid for key in keys.keys] == [read_as]


def test_numbers_in_padded_or_plain_base64_are_read() -> None:
    numbers = good()["n"]
    for spelled in (numbers + "==", numbers.replace("-", "+").replace("_", "/"), numbers[:40] + "\r\n" + numbers[40:]):
        key = read({**good(), "n": spelled}).keys[0].key
        assert isinstance(key, RSAKey)
        assert key.as_dict(private=False)["n"] == numbers


def test_private_parts_are_not_read() -> None:
    keys = read(rsa_key().as_dict(private=True))
    assert not keys.keys[0].key.is_private


def test_verify_operations_are_accepted() -> None:
    assert read({**good(), "use": "sig", "key_ops": ["verify"]}).keys


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no array named keys"),
        (b'{"keys":{}}', "no array named keys"),
        (b'{"keys":[]}', "no usable key"),
        (b'{"keys":[],"keys":[]}', "occurs twice"),
        (b'{"keys":[' + b",".join([b"{}"] * 1025) + b"]}", "more than 1024 keys"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "bytes"),
        (b'{"keys":' + b"[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_invalid_key_set_is_refused_with_the_reason(document: bytes, reason: str) -> None:
    with pytest.raises(UnreadableKeys, match=reason):
        read_keys(document)


def test_large_set_is_read_and_the_key_of_the_kid_is_tried_first() -> None:
    """A provider that never removes its old keys."""
    old = [{**ec_key().as_dict(private=False), "kid": f"old-{number}"} for number in range(999)]
    keys = read(*old, ec_key("P-256", "current").as_dict(private=False))
    assert len(keys.keys) == 1000
    assert keys.fitting("ES256", "current")[0].kid == "current"


def test_two_keys_of_one_kid_are_both_candidates() -> None:
    keys = read(*jwks(ec_key("P-256", "same"), okp_key("same"))["keys"])
    assert len(keys.candidates("same")) == 2
    assert keys.candidates("other") == ()
    assert len(keys.candidates(None)) == 2


@pytest.mark.parametrize("signature", [b"", b"x", b"\x00" * 64, b"\xff" * 256, b"a" * 5000])
def test_malformed_signature_is_refused_without_an_exception(signature: bytes) -> None:
    for key in key_set(rsa_key(), ec_key(), okp_key()).keys:
        for algorithm in (*key.algorithms, "HS256", "none"):
            assert not key.verifies(algorithm, b"input", signature)


_MEMBER = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"]),
    st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "AQAB", "A" * 43])
    | st.text(max_size=60)
    | st.none(),
)


@given(st.lists(_MEMBER, max_size=4))
def test_any_key_set_is_read_or_raises_unreadable(members: list[Any]) -> None:
    try:
        keys = read(*members)
    except UnreadableKeys:
        return
    assert all(key.algorithms for key in keys.keys)


@pytest.mark.parametrize(
    ("jwk", "algorithm", "token"),
    [
        (
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            },
            "ES256",
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
            "Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            "EdDSA",
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijc"
            "NR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ],
    ids=["RFC 7515 appendix A.3", "RFC 8037 appendix A.4"],
)
def test_vectors_of_the_rfcs_verify(jwk: dict[str, Any], algorithm: str, token: str) -> None:
    signing_input, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    (key,) = read(jwk).keys
    assert key.verifies(algorithm, signing_input.encode(), raw)
    assert not key.verifies(algorithm, signing_input.encode() + b"A", raw)
    assert not key.verifies(algorithm, signing_input.encode(), raw[:-1] + bytes([raw[-1] ^ 1]))


def _roca_modulus() -> int:
    """Return the product of two primes of the form that Infineon's library generated for 2048-bit keys.

    The form is k * M + (65537 ** a mod M).
    """
    primorial, count, candidate = 1, 0, 2
    while count < 126:
        if all(candidate % d for d in range(2, int(candidate**0.5) + 1)):
            primorial, count = primorial * candidate, count + 1
        candidate += 1
    one, other = (
        k * primorial + pow(65537, a, primorial)
        for k, a in ((7497184320278850, 514660148694459054), (7405791944929536, 253949955587779181))
    )
    assert pow(2, one - 1, one) == pow(2, other - 1, other) == 1
    return one * other


def test_key_with_the_structure_of_roca_is_skipped() -> None:
    """CVE-2017-15361."""
    modulus = _roca_modulus()
    assert has_roca_fingerprint(modulus)
    n = base64.urlsafe_b64encode(modulus.to_bytes(256, "big")).rstrip(b"=").decode()
    weak = {"kty": "RSA", "kid": "weak", "n": n, "e": "AQAB"}
    keys = read(weak, rsa_key().as_dict(private=False))
    assert [key.kid for key in keys.keys] == ["r1"]
    assert keys.skipped == 1
    with pytest.raises(UnreadableKeys, match="no usable key"):
        read(weak)


def test_sound_moduli_do_not_have_the_structure_of_roca() -> None:
    assert not has_roca_fingerprint(rsa_key().public_key.public_numbers().n)
    rng = random.Random(2)
    assert not any(has_roca_fingerprint(rng.getrandbits(2048) | 1) for _ in range(20_000))
