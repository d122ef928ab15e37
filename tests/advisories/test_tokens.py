"""Attacks on tokens, keys and signatures: what is checked, with which key, and what is used afterwards."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

import akoya_verify as v
from akoya_gateway.config.model import EncryptionKey, Signing, SigningAlgorithm, SigningKey, SigningScheme, key_id
from akoya_gateway.errors import UndecryptableRecord
from akoya_gateway.oauth.id_token import IdTokenRejected, UnknownKey, validate_id_token
from akoya_gateway.oauth.jwks import KeySet, UnreadableKeys, read_keys
from akoya_gateway.provider.remote_keys import RemoteKeySet
from akoya_gateway.secret import Secret
from akoya_gateway.signing import signer
from akoya_gateway.signing.key_generation import as_text, generate_private_key
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import context
from akoya_gateway.store.encryption import DamagedRecord, Keyring
from tests.advisories.advisory import advisory
from tests.support.oauth_values import (
    NOW,
    claims,
    client,
    ec_key,
    environment,
    hmac_signed,
    jwks,
    key_set,
    rsa_key,
    signed,
)
from tests.support.signing import FULL, KEYS, signing
from tests.support.signing import NOW as SIGNED_AT

ISSUER, AUDIENCE = "https://app.example.com", "http://127.0.0.1:3000"
HEADERS = list[tuple[bytes | str, bytes | str]]


def rejected(token: Secret, keys: KeySet | None = None) -> IdTokenRejected:
    with pytest.raises(IdTokenRejected) as caught:
        validate_id_token(token, keys if keys is not None else key_set(rsa_key()), client(), environment(), NOW)
    return caught.value


def compact(header: Mapping[str, Any], body: Mapping[str, Any], signature: bytes = b"x") -> Secret:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return Secret(b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode())


@advisory("GHSA-wcvh-g65p-v576", attack="A locally validated token is accepted without checking `aud` and `iss`.",
          ours="In every id_token `iss` must equal the environment's issuer, `aud` must contain the client_id, and `azp` must match it.")  # fmt: skip
def test_ghsa_wcvh_g65p_v576_audience_and_issuer() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"aud": "somebody-else"},
        {"aud": []},
        {"aud": None},
        {"iss": "https://evil.example/"},
        {"iss": None},
        {"azp": "else"},
        {"aud": ["a3f9:demo2"]},
    )
    for change in changes:
        rejected(signed(claims(**change)))
    validate_id_token(signed(claims()), key_set(rsa_key()), client(), environment(), NOW)


@advisory("lua-resty-openidc default", attack="A token with an unknown `alg` is accepted without verification.",
          ours="The key determines the permitted algorithms. Any other `alg` is refused.")  # fmt: skip
def test_lua_resty_unknown_alg() -> None:
    for alg in ("XX256", "RS1", "none", "None", "nOnE", "", "HS256", "RSA1_5", "dir", "ES256K", "RS256 "):
        rejected(compact({"alg": alg, "kid": "r1"}, claims()))
        with pytest.raises(IdTokenRejected):
            token = compact({"alg": alg, "kid": "r1"}, claims(aud="nobody"))
            validate_id_token(token, None, client(), environment(), NOW)


@advisory("CVE-2022-29217", "CVE-2024-37568", "CVE-2026-48522",
          attack="Algorithm confusion: a public key is used as HMAC secret, or an algorithm policy is bypassed.",
          ours="Keys from a JWK Set are public keys, usable only with the algorithms of their type. Shared secrets in it are ignored.")  # fmt: skip
def test_cve_2022_29217_algorithm_confusion() -> None:
    for encoding in (
        rsa_key().as_pem(private=False),
        rsa_key().as_der(private=False),
        json.dumps(rsa_key().as_dict(private=False)).encode(),
    ):
        rejected(hmac_signed(claims(), bytes(encoding), kid="r1"))
    rejected(signed(claims(), ec_key(), "ES256", kid="r1"))
    with pytest.raises(UnreadableKeys):
        read_keys(json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "r1"}]}).encode())


@advisory("CVE-2026-32597", "CVE-2025-59420", "CVE-2026-48523", attack="`crit` extensions are ignored.",
          ours="The gateway supports no extension, so a header with `crit` is refused whatever it lists.")  # fmt: skip
def test_cve_2026_32597_crit() -> None:
    for crit in (["exp"], ["b64"], [], "exp", None, ["x"]):
        rejected(compact({"alg": "RS256", "kid": "r1", "crit": crit}, claims()))


@advisory("CVE-2026-27962", attack="The `jwk` in the token's own header is trusted when no key is configured.",
          ours="Keys come only from `jwks_uri`. `jwk`, `jku`, `x5c` and `x5u` in a header are ignored.")  # fmt: skip
def test_cve_2026_27962_key_in_the_header() -> None:
    own = rsa_key("attacker")
    for header in (
        {"jwk": own.as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example"},
        {"x5c": ["AAAA"]},
    ):
        rejected(signed(claims(), own, kid="r1", **header))
        rejected(signed(claims(), own, kid=None, **header))


@advisory(
    "CVE-2026-28490",
    attack="A padding oracle of RSA1_5 decryption.",
    ours="Tokens are never decrypted: a JWE has five parts, and exactly three are required.",
)
def test_cve_2026_28490_no_encrypted_tokens() -> None:
    assert "compact form" in str(rejected(Secret("a.b.c.d.e")))


@advisory(
    "CVE-2026-28498",
    attack="A check of `at_hash` fails open.",
    ours="Unused claims do not affect the decision. Claims that are used are required and validated, and a token without them is refused.",
)
def test_cve_2026_28498_missing_claims_do_not_pass() -> None:
    for name in ("iss", "aud", "sub"):
        rejected(signed(claims(**{name: None})))
    with pytest.raises(IdTokenRejected):
        validate_id_token(signed(claims()), key_set(rsa_key()), client(), environment(), NOW, nonce="sent")


@advisory("CVE-2025-61920", "CVE-2026-41425", "CVE-2026-41479", "CVE-2025-62706", "CVE-2026-48524", "CVE-2026-48525",
          attack="Oversized or compressed tokens and headers (zip bomb, detached payload) exhaust memory and CPU.",
          ours="The length is checked first: at most 64 KiB per token and 8 KiB per header. Compressed and detached payloads are not supported.")  # fmt: skip
def test_cve_2025_61920_oversized_tokens() -> None:
    rejected(Secret("a" * 10_000_000))
    rejected(Secret("." * 10_000_000))
    rejected(compact({"alg": "RS256", "kid": "r1", "x": "y" * 20_000}, claims()))
    rejected(compact({"alg": "RS256", "kid": "r1", "zip": "DEF"}, claims()))
    rejected(Secret("eyJhbGciOiJSUzI1NiIsImI2NCI6ZmFsc2V9..x"))


@advisory(
    "CVE-2026-27932",
    attack="A PBES2 iteration count from the token burns CPU.",
    ours="No key permits password-based algorithms, so they never run.",
)
def test_cve_2026_27932_pbes2() -> None:
    rejected(compact({"alg": "PBES2-HS512+A256KW", "p2c": 2**31 - 1, "p2s": "AAAA", "kid": "r1"}, claims()))


@advisory(
    "CVE-2026-49852",
    attack="An empty HMAC key is accepted.",
    ours="HMAC never verifies id_tokens. The shared secret for signed headers must have at least 32 bytes.",
)
def test_cve_2026_49852_empty_hmac_key() -> None:
    rejected(hmac_signed(claims(), b"", kid="r1"))
    for secret in ("", "short", b"\x00" * 31):
        with pytest.raises(ValueError):
            v.secret_key("k1", secret)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://evil.example/k",
        "http://evil.example/keys",
        "data:application/json,{}",
        "gopher://x",
        "//x",
        "/etc/passwd",
        "",
    ],
)
@advisory(
    "CVE-2026-48526",
    attack="A JWKS is fetched from `file:` or `ftp:`.",
    ours="Only https is permitted, and http on loopback: in the gateway, in the configuration and in the verifier.",
)
def test_cve_2026_48526_jwks_over_odd_schemes(uri: str) -> None:
    with pytest.raises(ValueError):
        RemoteKeySet(uri, httpx.AsyncClient(), time.time)
    with pytest.raises(ValueError):
        v.RemoteKeys(uri)


@advisory("CVE-2026-33496", attack="A cache key does not contain the server: a token of one issuer is valid at another.",
          ours="Keys, issuer and audience belong to one environment and client. A token is validated only with those.")  # fmt: skip
def test_cve_2026_33496_a_token_of_another_environment() -> None:
    other = rsa_key("other")
    foreign = signed(claims(iss="https://other.example/"), other)
    assert isinstance(rejected(foreign), UnknownKey)
    rejected(signed(claims(iss="https://other.example/")))
    rejected(signed(claims(iss="https://other.example/"), other, kid="r1"))
    rejected(signed(claims(), other, kid="r1"), read_keys(json.dumps(jwks(rsa_key())).encode()))


@advisory("CVE-2026-47201", attack="Signature wrapping: the verified element is not the one that is used.",
          ours="The verifier returns only what the signature covers. Reading anything else is an error.")  # fmt: skip
def test_cve_2026_47201_what_is_used_is_what_is_signed() -> None:
    added, keys = _signed_request()
    assert v.verify("GET", "app.example.com", "/accounts", "x=1", added, keys, SIGNED_AT).owner == FULL.owner
    for extra in ((b"akoya-owner", b"me"), (b"Akoya_Owner", b"me"), (b"akoya-new", b"x"), (b"AKOYA.CONNECTOR", b"x"), (b"signature", b"akoya=:YQ==:"),
                  (b"signature-input", b'akoya=("@method")')):  # fmt: skip
        for changed in ([*added, extra], [extra, *added]):
            with pytest.raises(v.NotVerified):
                v.verify("GET", "app.example.com", "/accounts", "x=1", changed, keys, SIGNED_AT)
    for place in range(len(added)):
        with pytest.raises(v.NotVerified):
            v.verify(
                "GET", "app.example.com", "/accounts", "x=1", [*added[:place], *added[place + 1 :]], keys, SIGNED_AT
            )


def _signed_request() -> tuple[HEADERS, Mapping[str, v.Key]]:
    key = KEYS["ed25519"]
    prepared = signer(signing("ed25519"), ISSUER, AUDIENCE, clock=lambda: SIGNED_AT).prepare(FULL)
    added = prepared.headers(b"GET", b"app.example.com", b"/accounts", b"x=1", SIGNED_AT)
    return list(added), v.keys_of([v.jwk_key(key["public_jwk"])])


@advisory("ALBeast (2024)", attack="An attacker's own load balancer signs with the victim's `iss`, and the app does not pin the signer.",
          ours="The verifier takes keys only from the configured source, and requires issuer and audience for JWTs. There is no shared key service.")  # fmt: skip
def test_albeast_2024_another_gateways_key() -> None:
    foreign = generate_private_key(SigningAlgorithm.ED25519)
    own = v.keys_of([v.jwk_key(KEYS["ed25519"]["public_jwk"])])
    for scheme in SigningScheme:
        theirs = Signing(
            scheme,
            SigningAlgorithm.ED25519,
            (SigningKey(KEYS["ed25519"]["kid"], Secret(as_text(foreign))),),
            audience=AUDIENCE,
        )
        added: HEADERS = list(
            signer(theirs, ISSUER, AUDIENCE, clock=lambda: SIGNED_AT)
            .prepare(FULL)
            .headers(b"GET", b"a.example", b"/", b"", SIGNED_AT)
        )
        with pytest.raises(v.NotVerified):
            if scheme is SigningScheme.JWT:
                v.verify_assertion(added, own, ISSUER, AUDIENCE, SIGNED_AT)
            else:
                v.verify("GET", "a.example", "/", "", added, own, SIGNED_AT)
    ours: HEADERS = list(
        signer(signing("ed25519", SigningScheme.JWT), ISSUER, AUDIENCE, clock=lambda: SIGNED_AT)
        .prepare(FULL)
        .headers(b"GET", b"a", b"/", b"", SIGNED_AT)
    )
    assert v.verify_assertion(ours, own, ISSUER, AUDIENCE, SIGNED_AT).owner == FULL.owner
    for issuer, audience in (
        (ISSUER, "http://another.app"),
        ("https://another.example", AUDIENCE),
        (ISSUER + "/", AUDIENCE),
    ):
        with pytest.raises(v.NotVerified):
            v.verify_assertion(ours, own, issuer, audience, SIGNED_AT)


@advisory("CVE-2023-35941", attack="A MAC covers fields without delimiters, so that they can be split differently into credentials that never expire.",
          ours="The associated data of a record contains the length of each part. The signature base follows RFC 9421, with one line per component.")  # fmt: skip
def test_cve_2023_35941_fields_cannot_be_split_differently() -> None:
    shifted = [
        ("grant", "ab", "c"),
        ("grant", "a", "bc"),
        ("gran", "tab", "c"),
        ("grant", "", "abc"),
        ("grantab", "c", ""),
    ]
    assert len({context(Record(kind, key, b"", 1, group)) for kind, key, group in shifted}) == len(shifted)
    added, keys = _signed_request()
    for method, host, path, query in (("GET", "app.example.com", "/account", "sx=1"), ("GET", "app.example.com/", "accounts", "x=1"),
                                      ("GETT", "app.example.com", "/accounts", "x=1"), ("GET", "app.example.com", "/accounts?x=1", "")):  # fmt: skip
        with pytest.raises(v.NotVerified):
            v.verify(method, host, path, query, added, keys, SIGNED_AT)
    with pytest.raises(v.NotVerified):
        v.verify("GET", "app.example.com", "/accounts", "x=1", added, keys, SIGNED_AT + 3600)


@advisory("CVE-2021-32791", attack="Static nonce and associated data in AES-GCM.",
          ours="Each encryption uses a random 96-bit nonce. Key ID and the kind, key and group of the record are associated data.")  # fmt: skip
def test_cve_2021_32791_nonce_and_associated_data() -> None:
    keyring = Keyring([EncryptionKey(key_id(b"k" * 32), b"k" * 32)])
    sealed = {keyring.encrypt(b"the same", b"context") for _ in range(200)}
    assert len({text[10:22] for text in sealed}) == 200
    with pytest.raises(DamagedRecord):
        keyring.decrypt(next(iter(sealed)), b"another context")


@advisory("Envoy oauth2 filter (2026)", attack="AES-CBC decryption with the wrong key succeeds once in 256 times, and the MAC is compared byte by byte.",
          ours="With AES-GCM a wrong key or an altered byte is always an error. Secrets are compared in constant time.")  # fmt: skip
def test_envoy_2026_wrong_keys_and_altered_bytes() -> None:
    keyring = Keyring([EncryptionKey("one", b"k" * 32)])
    sealed = keyring.encrypt(b"plain", b"c")
    with pytest.raises(UndecryptableRecord):
        Keyring([EncryptionKey("two", b"q" * 32)]).decrypt(sealed, b"c")
    for number in range(600):
        with pytest.raises(DamagedRecord):
            Keyring([EncryptionKey("one", number.to_bytes(32, "big"))]).decrypt(sealed, b"c")
    for place in range(len(sealed)):
        with pytest.raises((DamagedRecord, UndecryptableRecord)):
            keyring.decrypt(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], b"c")
