"""An environment, a client, keys and id_tokens for the tests of `oauth` and `provider`."""

from __future__ import annotations

import base64
import hmac
import json
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from akoya_gateway.config.model import Client, Connector, Dialect, Environment, Seconds
from akoya_gateway.oauth.jwks import KeySet, read_keys
from akoya_gateway.secret import Secret

NOW = 1_800_000_000.0
ISSUER = "https://sandbox-idp.ddp.akoya.com/"
SECRET = "5ecr~t-of/the client+=%"


def environment(**changes: Any) -> Environment:
    dialect = changes.pop("dialect", Dialect())
    base = Environment(
        name="sandbox",
        issuer=ISSUER,
        authorization_endpoint="https://sandbox-idp.ddp.akoya.com/auth",
        token_endpoint="https://sandbox-idp.ddp.akoya.com/token",
        revocation_endpoint="https://sandbox-idp.ddp.akoya.com/revoke",
        jwks_uri=None,
        products_url=None,
        dialect=dialect,
        timeout=Seconds(2.0),
    )
    return replace(base, **changes)


def client(**changes: Any) -> Client:
    return Client(
        name="demo-app",
        environment=environment(**changes),
        client_id="a3f9:demo",
        client_secret=Secret(SECRET),
        redirect_uri="https://app.example.com/akoya/callback",
        callback_path="/akoya/callback",
        scopes=("openid", "profile", "offline_access"),
    )


def connector(of: Client) -> Connector:
    return Connector("mikomo-bank", "mikomo", "Mikomo Bank", of)


@cache
def rsa_key(kid: str = "r1") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


@cache
def ec_key(curve: str = "P-256", kid: str = "e1") -> ECKey:
    return ECKey.generate_key(curve, {"kid": kid})


@cache
def okp_key(kid: str = "o1") -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def jwks(*keys: Any, **extra: Any) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), **extra} for key in keys]}


def key_set(*keys: Any, **extra: Any) -> KeySet:
    return read_keys(json.dumps(jwks(*keys, **extra)).encode())


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid id_token. A change to None omits the claim."""
    base = {
        "iss": ISSUER,
        "aud": "a3f9:demo",
        "sub": "CghtaWtvbW9fMRIGbWlrb21v",
        "iat": int(NOW) - 5,
        "exp": int(NOW) + 900,
        "grant_id": "7f0c2c52-grant",
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


class _Any(JWSRegistry):
    max_header_length = max_payload_length = 1 << 20

    def check_header(self, header: Any) -> None:
        """Accept any header."""


def signed(body: dict[str, Any] | bytes, key: Any = None, alg: str = "RS256", **header: Any) -> Secret:
    """Return a JWT with this payload, also for invalid combinations of key and header."""
    key = key or rsa_key()
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    protected = {"alg": alg, "kid": key.kid, **header}
    protected = {name: value for name, value in protected.items() if value is not None}
    registry = _Any(algorithms=[alg], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 deprecates the name EdDSA, which providers still use
        return Secret(jws.serialize_compact(protected, payload, key, registry=registry))


def hmac_signed(body: dict[str, Any], secret: bytes, **header: Any) -> Secret:
    """Sign by hand, because joserfc rightly refuses a public key as an HMAC secret."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", **header}, body)]
    signing_input = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(secret, signing_input, "sha256")).rstrip(b"=")
    return Secret((signing_input + b"." + mac).decode())
