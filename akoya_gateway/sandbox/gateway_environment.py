"""How a gateway.yaml names this emulator."""

from __future__ import annotations

from typing import Any

import yaml

from akoya_gateway.sandbox.settings import ClientMethod, SandboxDialect, SandboxSettings


def jwks_path(settings: SandboxSettings) -> str:
    """Dex and Hydra publish their keys at different places (akoya.md section 1)."""
    return "/keys" if settings.dialect is SandboxDialect.DEX else "/.well-known/jwks.json"


def environment(settings: SandboxSettings) -> dict[str, Any]:
    """What stands under a name in `environments:`. `settings.base_url` must be known."""
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
    """The section to paste."""
    return yaml.safe_dump({"environments": {name: environment(settings)}}, sort_keys=False)
