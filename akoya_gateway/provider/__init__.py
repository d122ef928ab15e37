"""httpx to Akoya: the token endpoint, revocation, and the keys of its id_tokens.

`open_providers(config)` gives one `Provider` for each client, all over one HTTP client.
"""

from __future__ import annotations

from akoya_gateway.provider.factory import Providers, http_client, open_providers, trust
from akoya_gateway.provider.provider import Provider
from akoya_gateway.provider.remote_keys import KeysUnavailable, RemoteKeySet

__all__ = ["KeysUnavailable", "Provider", "Providers", "RemoteKeySet", "http_client", "open_providers", "trust"]
