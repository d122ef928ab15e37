from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import akoya_verify as v
from akoya_gateway.config.model import Signing, SigningAlgorithm, SigningKey, SigningScheme
from akoya_gateway.secret import Secret
from akoya_gateway.signing import jwks, jwks_headers, key_generation, signer
from akoya_gateway.signing.keys import (
    PUBLISHED_AFTER_SECONDS,
    InvalidSigningKey,
    KeySchedule,
    load_keys,
    load_schedule,
    thumbprint,
)
from tests.support.signing import FULL, KEYS, NOW, signing

ED = SigningAlgorithm.ED25519
EC = SigningAlgorithm.ECDSA_P256_SHA256
MAC = SigningAlgorithm.HMAC_SHA256


def one(text: str, key_id: str = "") -> SigningKey:
    return SigningKey(key_id, Secret(text))


def as_set(*jwks: dict[str, Any]) -> str:
    return json.dumps({"keys": jwks})


def test_rfc_7638_gives_its_own_example_of_an_ed25519_thumbprint() -> None:
    # RFC 8037 appendix A.3.
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
    (key,) = load_keys(ED, one(json.dumps(jwk)))
    assert key.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", [ED, EC])
def test_pem_and_jwk_of_one_key_have_one_id_here_and_at_the_verifier(algorithm: SigningAlgorithm) -> None:
    private = key_generation.generate_private_key(algorithm)
    (from_pem,) = load_keys(algorithm, one(key_generation.as_text(private)))
    (from_jwk,) = load_keys(algorithm, one(json.dumps(key_generation.as_jwk(private, NOW))))
    (named,) = load_keys(algorithm, one(key_generation.as_text(private), "k1"))
    public = from_pem.public_pem()
    assert public is not None
    assert from_pem.id == from_jwk.id == thumbprint(private) == v.pem_key(public).id
    assert named.id == "k1"


@pytest.mark.parametrize("algorithm", list(SigningAlgorithm))
def test_signature_of_a_new_key_verifies(algorithm: SigningAlgorithm) -> None:
    private = key_generation.generate_private_key(algorithm)
    for text in (key_generation.as_text(private), key_generation.as_set([key_generation.as_jwk(private, NOW)])):
        config = Signing(SigningScheme.HTTP_MESSAGE_SIGNATURES, algorithm, (one(text),))
        headers = signer(config, "https://a", "http://b").prepare(FULL).headers(b"GET", b"h", b"/", b"", NOW)
        secret = private if isinstance(private, bytes) else None
        key_id = load_schedule(algorithm, config.keys).keys[0].id
        keys = v.jwks_keys(jwks(config)) if secret is None else v.keys_of([v.secret_key(key_id, secret)])
        assert v.verify("GET", "h", "/", "", headers, keys, NOW).owner == FULL.owner


def test_shared_secret_is_never_published() -> None:
    for text in ("s" * 48, as_set(key_generation.as_jwk(b"s" * 48, NOW))):
        assert jwks(Signing(SigningScheme.JWT, MAC, (one(text, "k1"),))) == b'{"keys":[]}'


def test_private_keys_are_neither_published_nor_printed() -> None:
    for algorithm in ("ed25519", "ecdsa-p256-sha256"):
        document = json.loads(jwks(signing(algorithm)))
        secret = KEYS[algorithm]["private_jwk"]["d"]
        assert secret not in json.dumps(document)
        assert all("d" not in jwk and jwk["use"] == "sig" for jwk in document["keys"])
        assert secret not in repr(signing(algorithm))
        (key,) = load_schedule(SigningAlgorithm(algorithm), signing(algorithm).keys).keys
        assert "private" not in repr(key)


def test_key_set_may_be_cached_for_less_than_a_key_is_published_ahead() -> None:
    headers = dict(jwks_headers())
    assert headers[b"content-type"] == b"application/jwk-set+json"
    assert b"max-age=300" in headers[b"cache-control"]


@pytest.mark.parametrize(
    ("algorithm", "text", "message"),
    [
        (ED, "nonsense", "PEM"),
        (ED, key_generation.as_text(key_generation.generate_private_key(EC)), "does not fit"),
        (EC, key_generation.as_text(key_generation.generate_private_key(ED)), "does not fit"),
        (MAC, key_generation.as_text(key_generation.generate_private_key(ED)), "shared secret"),
        (MAC, "short", "32"),
        (ED, "{", "JSON"),
        (ED, "{}", "JWK"),
        (ED, '{"keys": 1}', "Set"),
        (ED, '{"keys": []}', "empty"),
        (ED, json.dumps(KEYS["ed25519"]["public_jwk"]), "public"),
        (ED, json.dumps({**KEYS["ed25519"]["private_jwk"], "nbf": "soon"}), "nbf"),
        (ED, as_set(KEYS["ed25519"]["private_jwk"], KEYS["ed25519"]["private_jwk"]), "two keys"),
        (ED, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "PEM"),
    ],
)
def test_key_that_cannot_sign_is_refused_with_a_remedy(algorithm: SigningAlgorithm, text: str, message: str) -> None:
    with pytest.raises(InvalidSigningKey) as refused:
        load_schedule(algorithm, [one(text)])
    assert message in str(refused.value)
    assert text == "{" or text not in str(refused.value)


def test_encrypted_pem_is_named_as_such() -> None:
    from cryptography.hazmat.primitives import serialization

    private: Any = key_generation.generate_private_key(ED)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    ).decode()
    with pytest.raises(InvalidSigningKey, match="encrypted"):
        load_schedule(ED, [one(pem)])


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(InvalidSigningKey, match="keys new"):
        KeySchedule([])


def test_first_of_several_plain_keys_signs_and_all_are_published() -> None:
    first, second = (key_generation.as_text(key_generation.generate_private_key(ED)) for _ in range(2))
    schedule = load_schedule(ED, [one(first, "new"), one(second, "old")])
    assert schedule.signing(NOW).id == "new"
    assert [jwk["kid"] for jwk in schedule.published(NOW)] == ["new", "old"]
    assert schedule.changes_after(NOW) == float("inf")


def test_rotation_publishes_first_signs_later_and_forgets_last() -> None:
    hour = 3600.0
    text = key_generation.as_set([key_generation.as_jwk(key_generation.generate_private_key(ED), NOW)])
    before = load_schedule(ED, [one(text)]).signing(NOW).id
    rotation = key_generation.rotate(text, ED, NOW, hour)
    schedule = load_schedule(ED, [one(rotation.text)])

    def kids(now: float) -> set[str]:
        return {jwk["kid"] for jwk in schedule.published(now)}

    assert schedule.signing(NOW).id == before
    assert kids(NOW) == {before, rotation.next_id}
    assert schedule.changes_after(NOW) == NOW + hour == rotation.begins_at
    assert schedule.signing(NOW + hour - 1).id == before
    assert schedule.signing(NOW + hour).id == rotation.next_id
    assert kids(NOW + hour) == {before, rotation.next_id}
    assert kids(NOW + hour + PUBLISHED_AFTER_SECONDS) == {rotation.next_id}

    again = key_generation.rotate(rotation.text, ED, NOW + 30 * hour, hour)
    assert again.dropped == (before,)
    assert key_generation.newest_key_time(again.text) == NOW + 30 * hour


def test_schedule_that_has_not_begun_is_refused_at_start() -> None:
    text = key_generation.as_set([key_generation.as_jwk(key_generation.generate_private_key(ED), NOW, NOW + 100)])
    config = Signing(SigningScheme.JWT, ED, (one(text),))
    with pytest.raises(InvalidSigningKey, match="yet"):
        signer(config, "https://a", "http://b", clock=lambda: NOW)
    assert signer(config, "https://a", "http://b", clock=lambda: NOW + 100)


def test_last_key_signs_after_its_end_without_a_rotation() -> None:
    old = {**key_generation.as_jwk(key_generation.generate_private_key(ED), NOW), "exp": NOW - 10}
    older = {**key_generation.as_jwk(key_generation.generate_private_key(ED), NOW), "exp": NOW - 20}
    schedule = load_schedule(ED, [one(as_set(older, old))])
    assert schedule.signing(NOW).id == old["kid"]
    assert schedule.published(NOW)[0]["kid"] == old["kid"]


@pytest.mark.parametrize("scheme", list(SigningScheme))
def test_prepared_signature_changes_its_key_when_the_time_comes(scheme: SigningScheme) -> None:
    """Replicas that read the same file change keys at the same moment without coordination."""
    rotation = key_generation.rotate(
        key_generation.as_set([key_generation.as_jwk(key_generation.generate_private_key(ED), NOW)]), ED, NOW, 10
    )
    config = Signing(scheme, ED, (one(rotation.text),), audience="http://b")
    keys = v.jwks_keys(jwks(config, lambda: NOW))
    prepared = signer(config, "https://a", "http://b", clock=lambda: NOW).prepare(
        replace(FULL, expires_at=int(NOW) + 900)
    )

    def key_at(now: float) -> str:
        headers = prepared.headers(b"GET", b"h", b"/", b"", now)
        if scheme is SigningScheme.JWT:
            return v.verify_assertion(headers, keys, "https://a", "http://b", now).key_id
        return v.verify("GET", "h", "/", "", headers, keys, now).key_id

    assert key_at(NOW) != rotation.next_id
    assert key_at(NOW + 9.9) != rotation.next_id
    assert key_at(NOW + 10) == rotation.next_id
    assert key_at(NOW + 1000 if scheme is SigningScheme.HTTP_MESSAGE_SIGNATURES else NOW + 11) == rotation.next_id
