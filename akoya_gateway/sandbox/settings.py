"""Settings of an emulator, immutable. What changes at run time is in `state` and `fault_injection`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.sandbox.fault_injection import Fault
from akoya_gateway.secret import Secret

DEFAULT_CLIENT_ID = "f2c1e6a0-5f0e-4d7a-9a52-0c6f5a3d7b11"
DEFAULT_CLIENT_SECRET = "sandbox~only~not~a~secret~01"
DEFAULT_REDIRECT_URIS = ("http://127.0.0.1:8080/akoya/callback", "http://localhost:8080/akoya/callback")


class SandboxDialect(StrEnum):
    """The identity provider to imitate (docs/akoya.md section 1a).

    `dex`: the error texts that Akoya documents. `hydra`: what the newer identity provider most likely returns.
    """

    DEX = "dex"
    HYDRA = "hydra"


class Audience(StrEnum):
    """Form of the `aud` claim. `auto`: a string for dex, an array for hydra."""

    AUTO = "auto"
    STRING = "string"
    ARRAY = "array"


class ClientMethod(StrEnum):
    """How a client may authenticate (RFC 6749 section 2.3.1)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"


@dataclass(frozen=True, slots=True)
class SandboxClient:
    """An app registered in the Data Recipient Hub. `may_authorize` False gives `unauthorized_client` at /auth."""

    client_id: str = DEFAULT_CLIENT_ID
    client_secret: Secret = field(default_factory=lambda: Secret(DEFAULT_CLIENT_SECRET))
    redirect_uris: tuple[str, ...] = DEFAULT_REDIRECT_URIS
    name: str = "Demo App"
    logo: str | None = None
    """`data:` URL of a logo for the consent pages. None: the first letter of the name."""
    may_authorize: bool = True


@dataclass(frozen=True, slots=True)
class SandboxConnector:
    """A data provider. `id` is the `connector` parameter, the path segment of the data APIs and `connectorId`."""

    id: str = "mikomo"
    name: str = "Mikomo Bank"


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """All settings. Durations are in seconds. The defaults are Akoya's documented behaviour."""

    clients: tuple[SandboxClient, ...] = (SandboxClient(),)
    connectors: tuple[SandboxConnector, ...] = (SandboxConnector(),)
    dialect: SandboxDialect = SandboxDialect.DEX
    base_url: str | None = None
    """Public base URL of the emulator, without a trailing slash. None: taken from each request's Host."""
    issuer: str | None = None
    """`iss` of id_tokens. None: `base_url` with a trailing slash, like Akoya's issuers."""

    id_token_lifetime: float = 86_400.0
    code_lifetime: float = 300.0
    login_lifetime: float = 600.0
    """Maximum time that a user may spend on the consent pages."""
    refresh_token_lifetime: float | None = None
    """Counted from consent, or from the last rotation with `refresh_token_rolling`. None: unlimited."""
    refresh_token_rolling: bool = False
    rotation_grace: float | None = None
    """How long a used refresh token is still accepted. None: it is rejected at once."""

    code_auth: frozenset[ClientMethod] = frozenset({ClientMethod.BASIC})
    refresh_auth: frozenset[ClientMethod] = frozenset({ClientMethod.POST})
    alg: str = "RS256"
    """`RS256` or `ES256`."""
    jwks: bool = True
    """False: no discovery document and no JWK Set, as in a deployment that does not publish them."""
    audience: Audience = Audience.AUTO
    expires_in: bool = True
    """Whether token responses contain `expires_in`."""
    announced_lifetime: int | None = None
    """A value of `expires_in` that differs from the real lifetime. None: the real lifetime."""
    access_token: bool = False
    """Whether token responses contain an access_token. The data APIs never accept it."""
    grant_id_in_answer: bool = True
    """Whether token responses contain `grant_id` at the top level (it is always a claim)."""
    callback_scope: bool | None = None
    """Whether the success callback also contains `scope`. None: with hydra only."""
    account_count: int = 3
    """Accounts of each test user. Hundreds make large id_tokens."""
    user_id_bytes: int = 0
    """Minimum length of the user ID inside `sub`. 128 gives a `sub` as long as the documented production example."""
    revoke_unknown_status: int = 200
    """Status for revoking an unknown or ended token: 200 (RFC 7009 section 2.2) or 400. Akoya documents neither."""

    rate_limit: float | None = None
    """Maximum requests per second to v2 of the data APIs. None: no limit."""
    v3_rate_limit: float | None = 5.0
    """The same for v3. 5 is the limit of Akoya's sandbox."""
    max_last_access_age: float | None = None
    """Maximum age of `x-akoya-last-access` in a v3 request of type `user`. None: any age."""
    data_timeout: float = 10.0
    """How long a `slow` data response may take before the client gets 408 instead."""
    faults: tuple[Fault, ...] = ()
    control: bool = False
    """Whether to serve `/_sandbox/`. It gives full control over the emulator, so use it on loopback only."""

    def __post_init__(self) -> None:
        """Convert strings to enum members and validate. Raises ValueError, which names the setting."""
        object.__setattr__(self, "dialect", SandboxDialect(self.dialect))
        object.__setattr__(self, "audience", Audience(self.audience))
        if self.alg not in ("RS256", "ES256"):
            raise ValueError(f"alg is {self.alg!r}: use RS256 or ES256")
        if not self.clients:
            raise ValueError("clients is empty: name at least one SandboxClient")
        if self.base_url is not None and self.base_url.endswith("/"):
            raise ValueError(f"base_url is {self.base_url!r}: leave out the trailing slash")
        if self.revoke_unknown_status not in (200, 400):
            raise ValueError(f"revoke_unknown_status is {self.revoke_unknown_status}: use 200 or 400")

    @property
    def says_scope_at_callback(self) -> bool:
        return self.callback_scope if self.callback_scope is not None else self.dialect is SandboxDialect.HYDRA

    @property
    def audience_is_array(self) -> bool:
        if self.audience is Audience.AUTO:
            return self.dialect is SandboxDialect.HYDRA
        return self.audience is Audience.ARRAY
