"""The emulator's entry under `environments:` of a gateway.yaml."""

from __future__ import annotations

from typing import Any

import yaml

from akoya_gateway.sandbox.settings import ClientMethod, SandboxDialect, SandboxSettings


def jwks_path(settings: SandboxSettings) -> str:
    """Return the path of the JWK Set, which differs between Dex and Hydra (docs/akoya.md section 1)."""
    return "/keys" if settings.dialect is SandboxDialect.DEX else "/.well-known/jwks.json"


def environment(settings: SandboxSettings) -> dict[str, Any]:
    """Return the entry for `environments:`. Raises ValueError if `settings.base_url` is None."""
    url = settings.base_url
    if url is None:
        raise ValueError("base_url is not set")
    document: dict[str, Any] = {
        "issuer": settings.issuer or f"{url}/",
        "authorization_endpoint": f"{url}/auth",
        "token_endpoint": f"{url}/token",
        "revocation_endpoint": f"{url}/revoke",
        "products_url": url,
    }
    if settings.jwks:
        document["jwks_uri"] = url + jwks_path(settings)
    document["dialect"] = {
        "code_auth": _preferred(settings.code_auth, ClientMethod.BASIC),
        "refresh_auth": _preferred(settings.refresh_auth, ClientMethod.POST),
        "bearer": "id_token",
    }
    if settings.rotation_grace:
        document["dialect"]["reuse_grace"] = f"{settings.rotation_grace:g}s"
    return document


def _preferred(accepted: frozenset[ClientMethod], first: ClientMethod) -> str:
    return (first if first in accepted else next(iter(accepted))).value


def environment_yaml(settings: SandboxSettings, name: str = "emulator") -> str:
    """Return the `environments:` section as YAML, ready to paste."""
    return yaml.safe_dump({"environments": {name: environment(settings)}}, sort_keys=False)
