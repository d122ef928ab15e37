"""The frozen result of loading a configuration: what every other module reads.

Nothing here validates; `config.loader` hands out only objects that cannot be wrong. Durations are seconds,
sizes are bytes. Names are those of `gateway.yaml`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NewType

from akoya_gateway.process_environment import ProcessEnvironment
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import TrustedPeer

Seconds = NewType("Seconds", float)
Bytes = NewType("Bytes", int)


class ClientAuthentication(StrEnum):
    """RFC 6749 section 2.3.1; names from the OAuth Token Endpoint Authentication Methods registry."""

    CLIENT_SECRET_BASIC = "client_secret_basic"
    CLIENT_SECRET_POST = "client_secret_post"


class Bearer(StrEnum):
    """Which token the data APIs take as the bearer. Akoya: the id_token."""

    ID_TOKEN = "id_token"
    ACCESS_TOKEN = "access_token"


class ErrorCategory(StrEnum):
    """What an error answer of the token endpoint means for the grant (akoya.md section 4)."""

    DEAD_TOKEN = "dead_token"
    OPERATOR_FAULT = "operator_fault"
    PROVIDER_DOWN = "provider_down"


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One row of `dialect.errors`: an answer with this status and `error` has this meaning. First match wins."""

    category: ErrorCategory
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    code_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_BASIC
    refresh_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_POST
    revoke_auth: ClientAuthentication = ClientAuthentication.CLIENT_SECRET_POST
    bearer: Bearer = Bearer.ID_TOKEN
    pkce: bool = False
    nonce: bool = False
    optional_claims: frozenset[str] = frozenset()
    """Of `exp` and `iat`, those that the provider's id_tokens may lack."""
    reuse_grace: Seconds = Seconds(0.0)
    """For how long after a rotation the provider accepts the old refresh token once more; 0: not at all."""
    errors: tuple[ErrorRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """One Akoya deployment. `issuer` None: `iss` is not judged (and `check` says so)."""

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
    """Token-endpoint requests a second that background work may make, and everything after a 429."""
    production: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    name: str
    environment: Environment
    client_id: str
    client_secret: Secret
    redirect_uri: str
    """Byte for byte as registered at Akoya."""
    callback_path: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connector:
    """`key` is its name in gateway.yaml and in our URLs and headers, `id` what Akoya calls it in the `connector`
    parameter (the same unless configured otherwise), `name` what people read."""

    key: str
    id: str
    name: str
    client: Client


@dataclass(frozen=True, slots=True)
class Origin:
    """A web origin (RFC 6454) plus how to dial it. `path` is the unix socket, if it is one."""

    scheme: str
    host: str
    port: int
    path: str | None = None

    @property
    def authority(self) -> str:
        """`host[:port]` without a default port, lower case, as `@authority` wants it (RFC 9421 2.2.3)."""
        default = {"http": 80, "https": 443}.get(self.scheme)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}" if self.path is None else f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: `host` and `port`, or the unix socket `path`."""

    host: str = "127.0.0.1"
    port: int = 8080
    path: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """Both directions. `idle_timeout`: nothing came from either side."""

    max_message: Bytes = Bytes(16_777_216)
    idle_timeout: Seconds = Seconds(600.0)


@dataclass(frozen=True, slots=True)
class Upstream:
    """An app behind the gateway. `origins` are taken in turn."""

    origins: tuple[Origin, ...]
    connect_timeout: Seconds = Seconds(5.0)
    read_timeout: Seconds = Seconds(60.0)
    pool: int = 100
    max_header_bytes: Bytes = Bytes(32_768)
    tls: UpstreamTLS = UpstreamTLS()
    websocket: WebSocketBounds = WebSocketBounds()
    keep_alive: bool = True
    """False: a connection carries one request."""
    name: str = ""
    """Its key in `upstreams`; empty: the one of `upstream`."""

    @property
    def address(self) -> str:
        """Where it stands in gateway.yaml."""
        return f"upstreams.{self.name}" if self.name else "upstream"

    @property
    def secure(self) -> bool:
        """Whether it is spoken to in https; its default port is the one that `@authority` leaves out."""
        return self.origins[0].scheme == "https"


class Require(StrEnum):
    NOTHING = "nothing"
    ANY = "any"
    CONNECTORS = "connectors"
    PARAMETER = "parameter"


class PathVariants(StrEnum):
    """What becomes of a path whose other spelling falls under another rule."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Otherwise(StrEnum):
    CONNECT = "connect"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    PASS = "pass"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One row of `access`. `connectors` when `require` is CONNECTORS (all of them), `parameter` when PARAMETER."""

    index: int
    path: str
    methods: frozenset[str] | None
    require: Require
    connectors: tuple[str, ...] = ()
    parameter: str | None = None
    otherwise: Otherwise = Otherwise.CONNECT
    pass_token: bool = True
    line: int = 0
    """Line in gateway.yaml, for `explain` and logs."""
    upstream: Upstream | None = None
    """Where it leads; None where the gateway passes nothing on itself."""
    label: str = field(init=False)
    """How logs, `explain` and assertions name the rule. Made once: every request says it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", f"access[{self.index}] {self.path}")


@dataclass(frozen=True, slots=True)
class Redirects:
    after_connect: str
    after_error: str
    allow: tuple[str, ...]
    """Path patterns (`/accounts/*`) and origin patterns (`https://app.example.com/*`)."""


class SameSite(StrEnum):
    LAX = "lax"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Cookie:
    name: str
    secure: bool
    same_site: SameSite = SameSite.LAX
    idle: Seconds = Seconds(12 * 3600.0)
    lifetime: Seconds = Seconds(30 * 86400.0)


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """One key that seals records: 32 bytes. `id` is derived from the key and is stored beside what it sealed."""

    id: str
    key: bytes = field(repr=False)


def key_id(key: bytes) -> str:
    """The public name of a ring key: 8 hex digits of SHA-256 under a prefix of our own: it tells nothing else."""
    return hashlib.sha256(b"akoya-gateway ring key id\0" + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Sessions:
    store: str
    """URL of the store; may hold a password, so never print it (see `store.describe`)."""
    keys: tuple[EncryptionKey, ...]
    """The first seals, all open."""
    cookie: Cookie


class IdentitySource(StrEnum):
    SESSION = "session"
    HEADER = "header"
    JWT = "jwt"


@dataclass(frozen=True, slots=True)
class Identity:
    source: IdentitySource = IdentitySource.SESSION
    header: str | None = None
    """Lower-case header that holds the user (HEADER) or the token (JWT)."""
    jwks_uri: str | None = None
    issuer: str | None = None
    audience: str | None = None
    claim: str = "sub"


class SigningScheme(StrEnum):
    HTTP_MESSAGE_SIGNATURES = "http-message-signatures"
    JWT = "jwt"


class SigningAlgorithm(StrEnum):
    """Names of the RFC 9421 section 6.2.2 registry."""

    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    HMAC_SHA256 = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`material`: PEM, JWK or JWK Set text, or the secret of `hmac-sha256`. An empty `id` means the thumbprint."""

    id: str
    material: Secret


@dataclass(frozen=True, slots=True)
class Signing:
    scheme: SigningScheme
    algorithm: SigningAlgorithm
    keys: tuple[SigningKey, ...]
    """The first signs; all are published (except shared secrets)."""
    expires: Seconds = Seconds(60.0)
    audience: str = ""
    """`aud` of the JWT scheme; empty: the URL of the upstream in question (`Config.audience`)."""
    content_digest: Bytes = Bytes(0)
    """Largest body that gets a Content-Digest (RFC 9530); 0: none."""


class Verify(StrEnum):
    """`auto`: id_token signatures are checked where the environment has a `jwks_uri`."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Tokens:
    refresh_before: Seconds = Seconds(60.0)
    assume_lifetime: Seconds = Seconds(900.0)
    """Life of a token that says nothing of its end, counted from its arrival."""
    verify: Verify = Verify.AUTO
    leeway: Seconds = Seconds(60.0)
    """Clock difference forgiven in `iat` and `exp`."""
    background: bool = True
    """Refresh grants in use before anybody has to wait."""


@dataclass(frozen=True, slots=True)
class Limits:
    attempts_per_browser: int = 8
    attempts: int = 100_000
    connects_per_minute: int = 30
    """Attempts that one client address may begin, in each worker; 0: no limit."""
    attempt_lifetime: Seconds = Seconds(900.0)
    header_bytes: Bytes = Bytes(65_536)
    header_fields: int = 256
    body_bytes: Bytes = Bytes(0)
    """0: no limit (bodies are streamed, not held)."""


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Logging:
    format: LogFormat = LogFormat.JSON
    level: str = "info"
    access: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the gateway does, decided. `warnings` are what `check` says without failing."""

    source: Path
    public_url: Origin
    prefix: str
    """`/akoya`: no trailing slash."""
    listen: Listen
    admin: Listen | None
    token_bearer: Secret | None
    """Who shows it at the admin listener gets tokens (`gateway.admin_token`); None: nobody does."""
    upstream: Upstream | None
    """The one of every access rule that names no other; None: the gateway is middleware inside an app."""
    upstreams: Mapping[str, Upstream]
    """The others, by name."""
    environments: Mapping[str, Environment]
    clients: Mapping[str, Client]
    connectors: Mapping[str, Connector]
    redirects: Redirects
    access: tuple[AccessRule, ...]
    sessions: Sessions
    identity: Identity
    trusted_proxies: tuple[TrustedPeer, ...]
    forward_auth: bool | None
    """Whether trusted proxies may ask for decisions; None: where the gateway has no app behind it."""
    signing: Signing
    tokens: Tokens
    limits: Limits
    logging: Logging
    surroundings: ProcessEnvironment = ProcessEnvironment()
    """Of the process, for HTTPS to the provider; empty if no https endpoint is configured."""
    allow_underscore_headers: tuple[str, ...] = ()
    """Lower-case names with `_` that reach the app (`client_headers`)."""
    root_path: str = ""
    """Where the middleware is mounted. `prefix` and the paths of `access` begin with it already."""
    path_variants: PathVariants = PathVariants.REFUSE
    warnings: tuple[str, ...] = ()

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """`upstream`, if there is one, and the others."""
        default = () if self.upstream is None else (self.upstream,)
        return (*default, *self.upstreams.values())

    def audience(self, upstream: Upstream | None) -> str:
        """`aud` of what is said to `upstream`, or to the app around us. Each has its own unless `signing.audience`
        says otherwise: what one was told is then worth nothing to another."""
        return self.signing.audience or str(self.public_url if upstream is None else upstream.origins[0])
