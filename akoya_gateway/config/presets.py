"""Presets for Akoya's two environments as Akoya documents them (`docs/akoya.md` sections 1 and 4).

Also has the error rules that all environments share. Hosts may differ per tenant, so gateway.yaml can override each
value. Akoya documents no `jwks_uri`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from akoya_gateway.config.model import ErrorCategory, ErrorRule


@dataclass(frozen=True, slots=True)
class Preset:
    """Default values for an environment."""

    issuer: str
    """The issuer, with a trailing slash as in Akoya's id_tokens."""
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    products_url: str
    production: bool
    data_rate: float | None
    """Calls of the data APIs a second; None if Akoya publishes no limit (`docs/akoya.md` section 6)."""


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "akoya-sandbox": Preset(
            issuer="https://sandbox-idp.ddp.akoya.com/",
            authorization_endpoint="https://sandbox-idp.ddp.akoya.com/auth",
            token_endpoint="https://sandbox-idp.ddp.akoya.com/token",
            revocation_endpoint="https://sandbox-idp.ddp.akoya.com/revoke",
            products_url="https://sandbox-products.ddp.akoya.com",
            production=False,
            data_rate=5.0,
        ),
        "akoya-production": Preset(
            issuer="https://idp.ddp.akoya.com/",
            authorization_endpoint="https://idp.ddp.akoya.com/auth",
            token_endpoint="https://idp.ddp.akoya.com/token",
            revocation_endpoint="https://idp.ddp.akoya.com/revoke",
            products_url="https://products.ddp.akoya.com",
            production=True,
            data_rate=None,
        ),
    }
)

PRODUCTION_HOSTS = frozenset({"idp.ddp.akoya.com", "products.ddp.akoya.com"})
SANDBOX_HOSTS = frozenset({"sandbox-idp.ddp.akoya.com", "sandbox-products.ddp.akoya.com"})
PRODUCTS = frozenset(
    {
        "accounts-info",
        "balances",
        "accounts",
        "taxlots",
        "transactions",
        "payments",
        "customers",
        "contacts",
        "statements",
        "tax-forms",
    }
)
"""The products of the data APIs."""
SANDBOX_CONNECTOR = "mikomo"
"""A connector that exists only in the sandbox."""

DEFAULT_ERRORS = (
    # The client was rejected. The grant is not affected.
    ErrorRule(ErrorCategory.OPERATOR_FAULT, status=401),
    ErrorRule(ErrorCategory.OPERATOR_FAULT, error="invalid_client"),
    ErrorRule(ErrorCategory.OPERATOR_FAULT, error="unauthorized_client"),
    # Both generations of Akoya's identity provider. Only with 400: Dex also sends `invalid_request` with 500 when its
    # disk fails.
    ErrorRule(ErrorCategory.DEAD_TOKEN, status=400, error="invalid_grant"),
    ErrorRule(ErrorCategory.DEAD_TOKEN, status=400, error="invalid_request"),
    # Rejected before it was processed. No other 5xx is listed, because the refresh token may have been consumed.
    ErrorRule(ErrorCategory.PROVIDER_DOWN, status=429),
    ErrorRule(ErrorCategory.PROVIDER_DOWN, status=503),
)
"""What an error response of the token endpoint means if no rule of `dialect.errors` matches it."""
