"""The names of `akoya_verify`, the distribution that verifies the gateway's headers in upstream apps.

The gateway depends on it. An app behind a sidecar installs only `akoya-verify`, and imports `akoya_verify`.
"""

from __future__ import annotations

from akoya_verify import (
    AsgiVerifier,
    Connection,
    ConnectionMissing,
    Key,
    KeySource,
    NotVerified,
    RemoteKeys,
    ReplayCache,
    Verified,
    WsgiVerifier,
    authority_of,
    body_matches,
    connection_of,
    current,
    jwk_key,
    jwks_keys,
    keys_of,
    pem_key,
    secret_key,
    verify,
    verify_assertion,
)

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
