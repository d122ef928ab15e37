"""The values of `environments`, `clients` and `connectors`: the providers, and how to talk to them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from akoya_gateway.config.model.units import Seconds
from akoya_gateway.secret import Secret


class ClientAuthentication(StrEnum):
    """How a client authenticates at the token endpoint (RFC 6749 section 2.3.1).

    The names are those of the OAuth Token Endpoint Authentication Methods registry.
    """

    CLIENT_SECRET_BASIC = "client_secret_basic"
    CLIENT_SECRET_POST = "client_secret_post"


class Bearer(StrEnum):
    """Which token the data APIs accept as the bearer token. For Akoya it is the id_token."""

    ID_TOKEN = "id_token"
    ACCESS_TOKEN = "access_token"


class ErrorCategory(StrEnum):
    """What an error response of the token endpoint means for the grant (`docs/akoya.md` section 4)."""

    DEAD_TOKEN = "dead_token"
    OPERATOR_FAULT = "operator_fault"
    PROVIDER_DOWN = "provider_down"


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One row of `dialect.errors`: the meaning of a response with this status and `error`.

    None matches any status or any `error`. The first match wins.
    """

    category: ErrorCategory
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an environment differs from plain OAuth 2.0."""

    code_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_BASIC
    refresh_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_POST
    revoke_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_POST
    bearer: Bearer = Bearer.ID_TOKEN
    pkce: bool = False
    nonce: bool = False
    optional_claims: frozenset[str] = frozenset()
    """Which of `exp` and `iat` may be missing from the provider's id_tokens."""
    reuse_grace: Seconds = Seconds(0.0)
    """How long after a rotation the provider accepts the old refresh token once more. 0 means not at all."""
    errors: tuple[ErrorRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """One Akoya deployment. If `issuer` is None, `iss` is not validated, and `check` warns about it."""

    name: str
    issuer: str | None
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str | None
    jwks_uri: str | None
    products_url: str | None
    dialect: Dialect
    authorization_parameters: tuple[tuple[str, str], ...] = ()
    timeout: Seconds = Seconds(15.0)
    rate: float = 5.0
    """Limit on token endpoint requests per second: for background work, and for all requests after a 429."""
    production: bool = False
    data_rate: float | None = None
    """Limit on calls of the data APIs per second, over all processes that share the store. None means no limit."""


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client registration."""

    name: str
    environment: Environment
    client_id: str
    client_secret: Secret
    redirect_uri: str
    """The redirect URI, byte for byte as registered at Akoya."""
    callback_path: str
    scopes: tuple[str, ...]

    @property
    def token_source(self) -> str:
        """Identifies what a refresh token belongs to: the token endpoint that issued it, and the client_id."""
        source = f"{self.client_id}\n{self.environment.token_endpoint}"
        return base64.urlsafe_b64encode(hashlib.sha256(source.encode()).digest()[:12]).decode()


class OtherLogin(StrEnum):
    """What happens to the logins at a bank when it is connected with another one."""

    ADD = "add"
    REPLACE = "replace"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Connector:
    """A data provider.

    `key` is its name in gateway.yaml and in the gateway's URLs and headers. `id` is the value of Akoya's `connector`
    parameter, which is the key unless configured otherwise. `name` is the name shown to users.
    """

    key: str
    id: str
    name: str
    client: Client
    other_login: OtherLogin = OtherLogin.ADD
