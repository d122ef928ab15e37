"""HTTP requests to Akoya with httpx: the token endpoint, revocation, and the keys for its id_tokens.

`open_providers(config)` returns one `Provider` per client, all of which share one HTTP client.
"""

from __future__ import annotations

from akoya_gateway.provider.factory import Providers, http_client, open_providers, trust
from akoya_gateway.provider.provider import Provider
from akoya_gateway.provider.remote_keys import KeysUnavailable, RemoteKeySet

__all__ = ["KeysUnavailable", "Provider", "Providers", "RemoteKeySet", "http_client", "open_providers", "trust"]
