"""Verifies the headers that Akoya Gateway signs, for the app behind the gateway.

    keys = RemoteKeys("https://app.example.com/akoya/jwks.json")
    verified = verify(method, host, path, query, headers, keys, time.time())
    verified.owner, verified.connector, verified.id_token

To protect a whole app, wrap it in `AsgiVerifier(app, keys)` (sets `scope["akoya"]`) or `WsgiVerifier(app, keys)` (sets
`environ["akoya"]`).

This package needs only the standard library and `cryptography`. It imports no other package of the gateway.
"""

from __future__ import annotations

from akoya_verify.asgi import AsgiVerifier
from akoya_verify.connection import ConnectionMissing, connection_of, current
from akoya_verify.content_digest import body_matches
from akoya_verify.jwt_assertion import verify_assertion
from akoya_verify.keys import Key, KeySource, jwk_key, jwks_keys, keys_of, pem_key, secret_key
from akoya_verify.message_signatures import authority_of, verify
from akoya_verify.remote_keys import RemoteKeys
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import Connection, NotVerified, Verified
from akoya_verify.wsgi import WsgiVerifier

__all__ = [
    "AsgiVerifier",
    "Connection",
    "ConnectionMissing",
    "Key",
    "KeySource",
    "NotVerified",
    "RemoteKeys",
    "ReplayCache",
    "Verified",
    "WsgiVerifier",
    "authority_of",
    "body_matches",
    "connection_of",
    "current",
    "jwk_key",
    "jwks_keys",
    "keys_of",
    "pem_key",
    "secret_key",
    "verify",
    "verify_assertion",
]
