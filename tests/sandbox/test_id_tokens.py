"""The id_token: its claims and its keys (docs/akoya.md section 4)."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import pytest
from joserfc import jwk, jwt

from akoya_gateway.sandbox import Audience, SandboxDialect, SandboxServer, SandboxSettings
from akoya_gateway.sandbox.demo_users import subject
from tests.support.sandbox_client import HTTP, connect, refresh


def read(server: SandboxServer, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims, verified with the published keys."""
    keys = jwk.KeySet.import_key_set(HTTP.get(server.jwks_uri).json())
    decoded = jwt.decode(token, keys, algorithms=[server.settings.alg])
    return dict(decoded.header), dict(decoded.claims)


def test_documented_claims(dex: SandboxServer) -> None:
    header, claims = read(dex, connect(dex)["id_token"])
    assert header["alg"] == "RS256"
    assert header["kid"]
    assert claims["iss"] == f"{dex.url}/"
    assert claims["aud"] == dex.client_id
    assert claims["sub"] == "CghtaWtvbW9fMRIGbWlrb21v"
    assert claims["exp"] - claims["iat"] == 86_400
    assert abs(claims["iat"] - time.time()) < 60
    assert len(claims["accounts"]) == 3
    assert claims["connectorId"] == "mikomo"
    assert {"at_hash", "grant_id", "products", "recipientId", "name"} <= set(claims)
    assert not {"rat", "sid", "jti", "auth_time", "nonce"} & set(claims)


def test_hydra_adds_its_claims_and_an_array_aud(hydra: SandboxServer) -> None:
    _, claims = read(hydra, connect(hydra)["id_token"])
    assert claims["aud"] == [hydra.client_id]
    assert {"rat", "sid", "jti", "auth_time"} <= set(claims)


def test_form_of_aud_is_configurable() -> None:
    with SandboxServer(SandboxSettings(audience=Audience.ARRAY)) as server:
        assert read(server, connect(server)["id_token"])[1]["aud"] == [server.client_id]


def test_nonce_is_echoed_and_kept_through_refreshes(either: SandboxServer) -> None:
    first = connect(either, nonce="n-1234567890")
    assert read(either, first["id_token"])[1]["nonce"] == "n-1234567890"


def test_sub_and_grant_id_stay_through_refreshes(either: SandboxServer) -> None:
    first = connect(either)
    second = refresh(either, first["refresh_token"]).json()
    one, two = read(either, first["id_token"])[1], read(either, second["id_token"])[1]
    assert (one["sub"], one["grant_id"]) == (two["sub"], two["grant_id"])


def test_two_logins_have_two_subs_and_a_new_consent_a_new_grant_id(dex: SandboxServer) -> None:
    one, again, other = (read(dex, connect(dex, user)["id_token"])[1] for user in ("mikomo_1", "mikomo_1", "mikomo_4"))
    assert one["sub"] == again["sub"] != other["sub"]
    assert one["grant_id"] != again["grant_id"]


def test_at_hash_is_of_the_access_token() -> None:
    with SandboxServer(SandboxSettings(access_token=True)) as server:
        tokens = connect(server)
        half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
        assert read(server, tokens["id_token"])[1]["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


def test_es256_lifetime_and_issuer_are_configurable() -> None:
    settings = SandboxSettings(alg="ES256", id_token_lifetime=900, issuer="https://idp.example/")
    with SandboxServer(settings) as server:
        tokens = connect(server)
        header, claims = read(server, tokens["id_token"])
        assert header["alg"] == "ES256"
        assert claims["iss"] == "https://idp.example/"
        assert claims["exp"] - claims["iat"] == 900 == tokens["expires_in"]


def test_sub_is_protobuf_with_long_lengths_too() -> None:
    decoded = base64.urlsafe_b64decode(subject("mikomo", "u", 128) + "==")
    assert decoded[:3] == b"\x0a\x80\x01"
    assert decoded[3:131] == b"u" + b"." * 127
    assert subject("mikomo", "u", 128).startswith("CoAB")


@pytest.mark.parametrize("dialect", list(SandboxDialect))
def test_discovery_names_the_endpoints_of_the_dialect(dialect: SandboxDialect) -> None:
    with SandboxServer(SandboxSettings(dialect=dialect)) as server:
        document = HTTP.get(f"{server.url}/.well-known/openid-configuration").json()
        assert document["issuer"] == f"{server.url}/"
        assert document["token_endpoint"] == f"{server.url}/token"
        path = "/keys" if dialect is SandboxDialect.DEX else "/.well-known/jwks.json"
        assert document["jwks_uri"] == server.jwks_uri == server.url + path
        keys = HTTP.get(server.jwks_uri).json()["keys"]
        assert [key["use"] for key in keys] == ["sig"]
        assert "d" not in keys[0]


def test_keys_can_be_left_unpublished() -> None:
    with SandboxServer(SandboxSettings(jwks=False)) as server:
        assert HTTP.get(server.jwks_uri).status_code == 404
        assert HTTP.get(f"{server.url}/.well-known/openid-configuration").status_code == 404
        assert "jwks_uri" not in server.environment()


def test_rotated_key_signs_and_both_are_published(akoya_sandbox: SandboxServer) -> None:
    old = connect(akoya_sandbox)["id_token"]
    kid = akoya_sandbox.rotate_keys()
    new = connect(akoya_sandbox)["id_token"]
    assert read(akoya_sandbox, new)[0]["kid"] == kid != read(akoya_sandbox, old)[0]["kid"]
    akoya_sandbox.rotate_keys(keep_old=False)
    assert len(HTTP.get(akoya_sandbox.jwks_uri).json()["keys"]) == 1
