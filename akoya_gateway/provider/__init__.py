"""httpx to Akoya: the token endpoint, revocation, and the keys of its id_tokens.

`open_providers(config)` gives one `Provider` for each client, all over one HTTP client.
"""

from __future__ import annotations

from akoya_gateway.provider.keys import KeySource, KeysUnavailable
from akoya_gateway.provider.open import Providers, http_client, open_providers, trust
from akoya_gateway.provider.provider import Provider

__all__ = ["KeySource", "KeysUnavailable", "Provider", "Providers", "http_client", "open_providers", "trust"]
