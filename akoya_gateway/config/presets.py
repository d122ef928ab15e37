"""What Akoya documents about its two environments (akoya.md sections 1 and 4), and the rules all environments share.

Hosts may differ per tenant, so each value is only what an environment has where gateway.yaml says nothing else. Akoya
documents no `jwks_uri`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from akoya_gateway.config.model import ErrorCategory, ErrorRule


@dataclass(frozen=True, slots=True)
class Preset:
    issuer: str
    """With the slash at its end, as in Akoya's id_tokens."""
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    products_url: str
    production: bool


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "akoya-sandbox": Preset(
            issuer="https://sandbox-idp.ddp.akoya.com/",
            authorization_endpoint="https://sandbox-idp.ddp.akoya.com/auth",
            token_endpoint="https://sandbox-idp.ddp.akoya.com/token",
            revocation_endpoint="https://sandbox-idp.ddp.akoya.com/revoke",
            products_url="https://sandbox-products.ddp.akoya.com",
            production=False,
        ),
        "akoya-production": Preset(
            issuer="https://idp.ddp.akoya.com/",
            authorization_endpoint="https://idp.ddp.akoya.com/auth",
            token_endpoint="https://idp.ddp.akoya.com/token",
            revocation_endpoint="https://idp.ddp.akoya.com/revoke",
            products_url="https://products.ddp.akoya.com",
            production=True,
        ),
    }
)

PRODUCTION_HOSTS = frozenset({"idp.ddp.akoya.com", "products.ddp.akoya.com"})
SANDBOX_HOSTS = frozenset({"sandbox-idp.ddp.akoya.com", "sandbox-products.ddp.akoya.com"})
SANDBOX_CONNECTOR = "mikomo"
"""Exists in the sandbox only."""

DEFAULT_ERRORS = (
    # The client is refused: the grant is as good as it was.
    ErrorRule(ErrorCategory.OPERATOR_FAULT, status=401),
    ErrorRule(ErrorCategory.OPERATOR_FAULT, error="invalid_client"),
    ErrorRule(ErrorCategory.OPERATOR_FAULT, error="unauthorized_client"),
    # Both eras of Akoya's identity provider. Only with 400: Dex answers `invalid_request` with 500 when its disk fails.
    ErrorRule(ErrorCategory.DEAD_TOKEN, status=400, error="invalid_grant"),
    ErrorRule(ErrorCategory.DEAD_TOKEN, status=400, error="invalid_request"),
    # Refused before it was looked at. Any other 5xx may have spent the token and is not listed on purpose.
    ErrorRule(ErrorCategory.PROVIDER_DOWN, status=429),
    ErrorRule(ErrorCategory.PROVIDER_DOWN, status=503),
)
"""What an error answer of the token endpoint means where `dialect.errors` has no rule for it."""
