"""Verifies what Akoya Gateway signed. For the app behind the gateway; needs the standard library and `cryptography`.

    keys = RemoteKeys("https://app.example.com/akoya/jwks.json")
    said = verify(method, host, path, query, headers, keys, time.time())
    said.owner, said.connector, said.id_token

or, around a whole app, `AsgiVerifier(app, keys)` (`scope["akoya"]`) and `WsgiVerifier(app, keys)` (`environ["akoya"]`).
It imports nothing else of the gateway.
"""

from __future__ import annotations

from akoya_gateway.verify.asgi import AsgiVerifier
from akoya_gateway.verify.content_digest import body_matches
from akoya_gateway.verify.jwt_assertion import verify_assertion
from akoya_gateway.verify.keys import Key, KeySource, jwk_key, jwks_keys, keys_of, pem_key, secret_key
from akoya_gateway.verify.message_signatures import authority_of, verify
from akoya_gateway.verify.remote_keys import RemoteKeys
from akoya_gateway.verify.replay_cache import ReplayCache
from akoya_gateway.verify.result import Connection, NotVerified, Verified
from akoya_gateway.verify.wsgi import WsgiVerifier

__all__ = [
    "AsgiVerifier",
    "Connection",
    "Key",
    "KeySource",
    "NotVerified",
    "RemoteKeys",
    "ReplayCache",
    "Verified",
    "WsgiVerifier",
    "authority_of",
    "body_matches",
    "jwk_key",
    "jwks_keys",
    "keys_of",
    "pem_key",
    "secret_key",
    "verify",
    "verify_assertion",
]
