"""Verifies what Akoya Gateway signed. For the app behind the gateway; needs the standard library and `cryptography`.

    keys = RemoteKeys("https://app.example.com/akoya/jwks.json")
    said = verify(method, host, path, query, headers, keys, time.time())
    said.owner, said.connector, said.id_token

or, around a whole app, `AsgiVerifier(app, keys)` (`scope["akoya"]`) and `WsgiVerifier(app, keys)` (`environ["akoya"]`).
The folder stands alone: it can be copied into another project as it is.
"""

from __future__ import annotations

from .asgi import AsgiVerifier
from .assertion import verify_assertion
from .digest import body_matches
from .keys import Key, KeySource, jwk_key, jwks_keys, keys_of, pem_key, secret_key
from .message import authority_of, verify
from .outcome import Connection, NotVerified, Verified
from .remote import RemoteKeys
from .replay import ReplayCache
from .wsgi import WsgiVerifier

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
