"""`akoya_verify.testing.signed_headers` sends what the gateway sends."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from akoya_gateway.config.model import Signing, SigningAlgorithm, SigningKey, SigningScheme
from akoya_gateway.secret import Secret
from akoya_gateway.signing import UpstreamClaims, signer
from akoya_verify import Connection, jwk_key, keys_of, secret_key, verify
from akoya_verify.testing import TEST_KEY, connected, signed_headers
from tests.support.signing import FULL, KEYS, NOW

SECRET = "a-secret-of-more-than-32-bytes-for-both-of-them"
KEY = secret_key("k1", SECRET)


def by_the_gateway(claims: UpstreamClaims) -> dict[str, str]:
    key = SigningKey("k1", Secret(SECRET))
    signing = Signing(SigningScheme.HTTP_MESSAGE_SIGNATURES, SigningAlgorithm("hmac-sha256"), (key,))
    made = signer(signing, "https://a", "http://b").prepare(claims)
    return {name.decode(): value.decode() for name, value in made.headers(b"GET", b"app:3000", b"/a%20b", b"x=1", NOW)}


def test_signed_headers_are_those_of_the_gateway() -> None:
    assert FULL.bearer is not None
    claims: dict[str, Any] = {
        "connector": FULL.connector,
        "owner": "ü 100%",
        "id_token": FULL.bearer.reveal(),
        "expires": FULL.expires_at,
        "scope": FULL.scope,
        "environment": FULL.environment,
        "provider": FULL.provider,
        "grant": FULL.grant,
        "consent": FULL.consent,
        "last_access": "2026-09-21T14:12:37Z",
        "connections": tuple(Connection(one.connector, one.state, one.expires_at, one.id) for one in FULL.connections),
        "id_tokens": {connector: token.reveal() for connector, token in FULL.id_tokens},
    }
    ours = signed_headers("GET", "http://app:3000/a%20b?x=1", key=KEY, now=NOW, **claims)
    theirs = by_the_gateway(replace(FULL, owner="ü 100%"))
    nonce = re.compile(r'nonce="[^"]*"')
    assert ours.pop("Host") == "app:3000"
    lower = {name.lower(): value for name, value in ours.items()}
    assert [*lower][:-2] == [*theirs][:-2]
    assert {**lower, "signature": "", "signature-input": nonce.sub("", lower["signature-input"])} == {
        **theirs,
        "signature": "",
        "signature-input": nonce.sub("", theirs["signature-input"]),
    }
    verified = verify("GET", "app:3000", "/a%20b", "x=1", list(ours.items()), keys_of([KEY]), NOW)
    assert (verified.owner, verified.id_tokens, verified.connections) == (
        claims["owner"],
        claims["id_tokens"],
        claims["connections"],
    )


def test_owner_without_a_bank_has_no_connection() -> None:
    ours = signed_headers(key=KEY, now=NOW, connector=None, owner="o")
    assert {name for name in ours if name.startswith("akoya-")} == {
        "akoya-owner",
        "akoya-interaction-type",
        "akoya-last-access",
    }
    assert verify("GET", "testserver", "/", "", list(ours.items()), keys_of([KEY]), NOW).connector is None
    assert connected(connector=None).connections == ()


def test_public_key_cannot_sign() -> None:
    with pytest.raises(ValueError, match="needs a shared secret"):
        signed_headers(key=jwk_key(KEYS["ed25519"]["public_jwk"]))
    assert isinstance(TEST_KEY.public, bytes)
