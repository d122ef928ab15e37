from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

import akoya_verify as v
from akoya_gateway.config.model import SigningScheme
from akoya_gateway.secret import Secret
from akoya_gateway.signing import UpstreamClaims, header_values, signer
from tests.support.signing import FULL, KEYS, NOW, signing


def prepared(algorithm: str, claims: UpstreamClaims = FULL) -> Any:
    config = signing(algorithm, SigningScheme.JWT)
    return signer(config, "https://gateway", "http://app", clock=lambda: NOW).prepare(claims)


def token(one: Any, now: float) -> str:
    ((name, value),) = one.headers(b"GET", b"h", b"/", b"", now)
    assert name == b"akoya-assertion"
    return str(value.decode())


def claims(text: str) -> dict[str, Any]:
    part = text.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def test_assertion_has_the_documented_claims(algorithm: str) -> None:
    payload = claims(token(prepared(algorithm), NOW))
    assert payload.pop("jti")
    assert payload == {
        "iss": "https://gateway",
        "aud": "http://app",
        "sub": "o-3Jd9Qm1Zx",
        "iat": int(NOW),
        "exp": int(NOW) + 60,
        "rule": FULL.rule,
        "connector": "mikomo",
        "environment": "sandbox",
        "id_token": FULL.bearer.reveal(),  # type: ignore[union-attr]
        "expires": 1790000900,
        "scope": "openid profile offline_access",
        "connections": [
            {"connector": "mikomo", "state": "live", "expires": 1790000900, "id": "g_3q2-7wQBAgMEBQYHCAkKCw"},
            {"connector": "second-bank", "state": "live", "expires": 1790000600, "id": "g_AAECAwQFBgcICQoLDA0ODw"},
            {"connector": "second-bank", "state": "revoked", "expires": 0, "id": "g_Dw4NDAsKCQgHBgUEAwIBAA"},
        ],
        "provider": "mikomo-provider",
        "grant": "g_3q2-7wQBAgMEBQYHCAkKCw",
        "consent": "7f0c2c52-grant",
        "interaction_type": "user",
        "last_access": "2026-09-21T14:12:37Z",
        "id_tokens": {
            "mikomo": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "second-bank": "eyJhbGciOiJSUzI1NiJ9.e31.c2ln",
        },
    }


def test_assertion_verifies(algorithm: str) -> None:
    key = KEYS[algorithm]
    known = v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
    headers = prepared(algorithm).headers(b"GET", b"h", b"/", b"", NOW)
    payload = v.verify_assertion(headers, {known.id: known}, "https://gateway", "http://app", NOW)
    assert (payload.owner, payload.rule, payload.scope) == (FULL.owner, FULL.rule, FULL.scope)


def test_assertion_is_signed_once_and_renewed_shortly_before_it_expires() -> None:
    one = prepared("ed25519")
    first = token(one, NOW)
    assert token(one, NOW + 53.9) == first
    second = token(one, NOW + 54)
    assert second != first
    assert claims(second)["jti"] != claims(first)["jti"]
    assert claims(second)["exp"] == int(NOW) + 114


def test_assertion_expires_no_later_than_its_token() -> None:
    one = prepared("ed25519", replace(FULL, expires_at=int(NOW) + 20))
    assert claims(token(one, NOW))["exp"] == int(NOW) + 20
    assert claims(token(one, NOW + 19))["exp"] == int(NOW) + 20


def test_assertion_is_not_reused_for_another_grant_or_rule() -> None:
    made = signer(signing("ed25519", SigningScheme.JWT), "https://gateway", "http://app", clock=lambda: NOW)
    one, other = made.prepare(FULL), made.prepare(replace(FULL, rule="access[2] /other"))
    assert claims(token(one, NOW))["rule"] != claims(token(other, NOW))["rule"]


def test_assertion_without_a_grant_names_only_the_owner(algorithm: str) -> None:
    payload = claims(token(prepared(algorithm, UpstreamClaims(owner="o", connections=(), rule="r")), NOW))
    assert set(payload) == {"iss", "aud", "sub", "jti", "iat", "exp", "rule", "connections", "interaction_type"}


def test_assertion_has_the_configured_audience() -> None:
    config = replace(signing("ed25519", SigningScheme.JWT), audience="payments")
    one = signer(config, "https://gateway", "http://app", clock=lambda: NOW).prepare(FULL)
    assert claims(token(one, NOW))["aud"] == "payments"


def test_assertion_of_a_value_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(header_values.UnencodableHeaderValue):
        prepared("ed25519", replace(FULL, bearer=Secret("a\nb")))


def test_size_estimate_is_never_less_than_what_is_sent(algorithm: str) -> None:
    one = prepared(algorithm)
    sent = len("akoya-assertion") + len(token(one, NOW)) + 4
    assert sent <= one.size <= sent + 128
