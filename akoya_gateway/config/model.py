"""The frozen result of loading a configuration, which every other module reads.

Nothing is validated here: `config.loader` returns only valid objects. Durations are in seconds, sizes in bytes. The
names are those of `gateway.yaml`, where each setting is described in full (`docs/configuration.md`).
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


@dataclass(frozen=True, slots=True)
class Origin:
    """A web origin (RFC 6454) and how to connect to it. `path` is the path of the Unix socket, or None for TCP."""

    scheme: str
    host: str
    port: int
    path: str | None = None

    @property
    def authority(self) -> str:
        """`host[:port]` in lower case and without a default port, as `@authority` requires (RFC 9421 section 2.2.3)."""
        default = {"http": 80, "https": 443}.get(self.scheme)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}" if self.path is None else f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: on `host` and `port`, or on the Unix socket `path`."""

    host: str = "127.0.0.1"
    port: int = 8080
    path: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    """TLS settings for an https upstream."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """Limits for WebSockets, in both directions. `idle_timeout` is the time without data from either side."""

    max_message: Bytes = Bytes(16_777_216)
    idle_timeout: Seconds = Seconds(600.0)


@dataclass(frozen=True, slots=True)
class Upstream:
    """An app behind the gateway. `origins` are used in turn."""

    origins: tuple[Origin, ...]
    connect_timeout: Seconds = Seconds(5.0)
    read_timeout: Seconds = Seconds(60.0)
    pool: int = 100
    max_header_bytes: Bytes = Bytes(32_768)
    tls: UpstreamTLS = UpstreamTLS()
    websocket: WebSocketBounds = WebSocketBounds()
    keep_alive: bool = True
    """If False, each connection carries only one request."""
    name: str = ""
    """The key in `upstreams`, or an empty string for the default `upstream`."""

    @property
    def address(self) -> str:
        """The path of this section in gateway.yaml."""
        return f"upstreams.{self.name}" if self.name else "upstream"

    @property
    def secure(self) -> bool:
        """True if the upstream uses https. This decides which default port `@authority` omits."""
        return self.origins[0].scheme == "https"


class Intent(StrEnum):
    """The value of `x-akoya-intent-type`."""

    NONPAYMENTS = "nonpayments"
    PAYMENTS = "payments"


@dataclass(frozen=True, slots=True)
class DataApi:
    """Akoya's data APIs of one environment as an upstream: an entry of `upstreams` with `data_api`."""

    name: str
    """The key in `upstreams`."""
    environment: Environment
    version: str
    intent: Intent
    products: frozenset[str]
    timeout: Seconds = Seconds(12.0)
    """The time for one call, with its waiting and repetitions."""

    @property
    def address(self) -> str:
        """The path of this section in gateway.yaml."""
        return f"upstreams.{self.name}"

    @property
    def base_url(self) -> str:
        """The `products_url` of the environment, without a trailing slash."""
        return (self.environment.products_url or "").rstrip("/")


class Require(StrEnum):
    """Which grants an access rule requires."""

    NOTHING = "nothing"
    ANY = "any"
    CONNECTORS = "connectors"
    PARAMETER = "parameter"


class PathVariants(StrEnum):
    """What to do with a path if another spelling of it matches a different access rule."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Otherwise(StrEnum):
    """What happens to a request that does not meet the requirement of its access rule."""

    CONNECT = "connect"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    PASS = "pass"


class GrantSource(StrEnum):
    """Where a request names one of several logins at one bank."""

    SINGLE = "single"
    """Nowhere: the owner may have only one."""
    QUERY = "query"
    HEADER = "header"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class GrantSelector:
    """How a login is chosen. `name` is that of the query parameter, the header (lower case) or the path parameter."""

    source: GrantSource
    name: str = ""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One row of `access`.

    `connectors` is set if `require` is CONNECTORS; all of them are required. `parameter` is set if it is PARAMETER.
    `grant` is None if the most recent login is passed. `pass_all` is True if the tokens of all required connectors are
    passed, not only that of the first.
    """

    index: int
    path: str
    methods: frozenset[str] | None
    require: Require
    connectors: tuple[str, ...] = ()
    parameter: str | None = None
    otherwise: Otherwise = Otherwise.CONNECT
    pass_token: bool = True
    pass_all: bool = False
    grant: GrantSelector | None = None
    line: int = 0
    """The line in gateway.yaml, for `explain` and logs."""
    upstream: Upstream | None = None
    """The upstream of matching requests, or None if the gateway does not forward requests itself."""
    name: str = ""
    """The configured name, or an empty string."""
    data_api: DataApi | None = None
    """The data API that the gateway calls for matching requests. `upstream` is None then, and no token is passed."""
    label: str = field(init=False)
    """The rule in metrics, logs, `explain` and assertions. Computed once because every request needs it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.name or f"access[{self.index}] {self.path}")


@dataclass(frozen=True, slots=True)
class Redirects:
    """Where browsers may be redirected."""

    after_connect: str
    after_error: str
    allow: tuple[str, ...]
    """Path patterns (`/accounts/*`) and origin patterns (`https://app.example.com/*`)."""


class SameSite(StrEnum):
    """The SameSite attribute of the session cookie."""

    LAX = "lax"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session cookie. `idle` and `lifetime` limit how long a session lasts."""

    name: str
    secure: bool
    same_site: SameSite = SameSite.LAX
    idle: Seconds = Seconds(12 * 3600.0)
    lifetime: Seconds = Seconds(30 * 86400.0)


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A 32-byte key that encrypts records. `id` is derived from the key and stored with each encrypted record."""

    id: str
    key: bytes = field(repr=False)


def key_id(key: bytes) -> str:
    """Return the public ID of an encryption key: the first 8 hex digits of a SHA-256 hash with a fixed prefix.

    The prefix separates this hash from other uses of SHA-256. The ID reveals nothing else about the key.
    """
    return hashlib.sha256(b"akoya-gateway ring key id\0" + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Browser sessions, and the store of sessions and grants."""

    store: str = field(repr=False)
    """The URL of the store. It may contain a password, so never print it (see `store.describe`)."""
    keys: tuple[EncryptionKey, ...]
    """The key ring. The first key encrypts, all keys decrypt."""
    cookie: Cookie


class IdentitySource(StrEnum):
    """What identifies the owner of grants: the browser session, a trusted proxy's header, or a JWT."""

    SESSION = "session"
    HEADER = "header"
    JWT = "jwt"


@dataclass(frozen=True, slots=True)
class Identity:
    """How the owner of grants is identified. Apart from `source` and `header`, the fields are for JWT only."""

    source: IdentitySource = IdentitySource.SESSION
    header: str | None = None
    """The lower-case name of the header that contains the user (HEADER) or the token (JWT)."""
    jwks_uri: str | None = None
    issuer: str | None = None
    audience: str | None = None
    claim: str = "sub"


class SigningScheme(StrEnum):
    """How the headers to the upstream are signed."""

    HTTP_MESSAGE_SIGNATURES = "http-message-signatures"
    JWT = "jwt"


class SigningAlgorithm(StrEnum):
    """The algorithm of the signing keys. The names are those of the RFC 9421 section 6.2.2 registry."""

    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    HMAC_SHA256 = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One entry of `signing.keys`.

    `material` is the text of a PEM, a JWK or a JWK Set, or the shared secret of `hmac-sha256`. An empty `id` means the
    thumbprint of the key.
    """

    id: str
    material: Secret


class InProcess(StrEnum):
    """How the middleware gives an app in the same process what it asserts. `scope["akoya"]` is set either way."""

    HEADERS = "headers"
    SCOPE = "scope"


@dataclass(frozen=True, slots=True)
class Signing:
    """How the headers to the upstream are signed."""

    scheme: SigningScheme
    algorithm: SigningAlgorithm
    keys: tuple[SigningKey, ...]
    """The first key signs. All public keys are published; shared secrets are not."""
    expires: Seconds = Seconds(60.0)
    audience: str = ""
    """The `aud` of the JWT scheme. If empty, it is the URL of the request's upstream (`Config.audience`)."""
    content_digest: Bytes = Bytes(0)
    """The size of the largest body that gets a Content-Digest (RFC 9530). 0 disables it."""
    in_process: InProcess = InProcess.HEADERS
    """Whether requests to an app that the middleware wraps get signed headers besides `scope["akoya"]`."""


class Verify(StrEnum):
    """Whether id_token signatures are verified. `auto` verifies them if the environment has a `jwks_uri`."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Tokens:
    """When tokens are fresh, when they are refreshed, and how they are verified."""

    refresh_before: Seconds = Seconds(60.0)
    assume_lifetime: Seconds = Seconds(900.0)
    """The lifetime of a token that does not state its expiry, counted from when it was received."""
    verify: Verify = Verify.AUTO
    leeway: Seconds = Seconds(60.0)
    """The tolerated clock difference in `iat` and `exp`."""
    background: bool = True
    """Whether grants in use are refreshed early, so that no request has to wait for a refresh."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on authorization attempts (`attempts...`, `connects_per_minute`) and on requests."""

    attempts_per_browser: int = 8
    attempts: int = 100_000
    connects_per_minute: int = 30
    """Authorization attempts that one client address may start per minute, in each worker. 0 means no limit."""
    attempt_lifetime: Seconds = Seconds(900.0)
    header_bytes: Bytes = Bytes(65_536)
    header_fields: int = 256
    body_bytes: Bytes = Bytes(0)
    """The size of the largest request body. 0 means no limit, because bodies are streamed and not buffered."""


@dataclass(frozen=True, slots=True)
class PageColors:
    """Colors of the pages, as `#rrggbb`: the accent in the light and in the dark scheme, and text on each."""

    accent: str
    accent_ink: str
    accent_dark: str
    accent_dark_ink: str


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Links in the footer of the pages: https URLs or absolute paths. None is left out."""

    help: str | None = None
    privacy: str | None = None
    terms: str | None = None


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What users see on the gateway's own pages."""

    app_name: str = ""
    """The name of the app, or an empty string: the pages then say "this app"."""
    logo: str | None = None
    """The image as a `data:` URL."""
    colors: PageColors | None = None
    links: PageLinks = PageLinks()
    language: str = "en"
    """The language for browsers that accept none of the pages' languages."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Files that replace or extend the built-in ones, by name, such as `base.html` and `style.css`."""


class LogFormat(StrEnum):
    """The format of log entries."""

    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Logging:
    """What is logged. `access` logs each request."""

    format: LogFormat = LogFormat.JSON
    level: str = "info"
    access: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """A complete, valid configuration. `warnings` are the warnings that `check` reports."""

    source: Path
    public_url: Origin
    prefix: str
    """The path prefix of the gateway's own routes, such as `/akoya`. It has no trailing slash."""
    listen: Listen
    admin: Listen | None
    token_bearer: Secret | None
    """The bearer that authorizes token requests on the admin listener (`gateway.admin_token`). None disables them."""
    upstream: Upstream | None
    """The upstream of every access rule that does not name another one.

    None if the gateway is middleware inside an app, or if every access rule names one of `upstreams`.
    """
    upstreams: Mapping[str, Upstream]
    """The other upstreams, by name. Those with `data_api` are in `data_apis`."""
    environments: Mapping[str, Environment]
    clients: Mapping[str, Client]
    connectors: Mapping[str, Connector]
    redirects: Redirects
    access: tuple[AccessRule, ...]
    sessions: Sessions
    identity: Identity
    trusted_proxies: tuple[TrustedPeer, ...]
    forward_auth: bool | None
    """Whether trusted proxies may use forward-auth. None allows it only if the gateway has no app behind it."""
    signing: Signing
    tokens: Tokens
    limits: Limits
    logging: Logging
    process_environment: ProcessEnvironment = ProcessEnvironment()
    """The process's settings for HTTPS to the provider. Empty if no https endpoint is configured."""
    allow_underscore_headers: tuple[str, ...] = ()
    """Lower-case header names with `_` that reach the app (`client_headers`)."""
    root_path: str = ""
    """The path at which the middleware is mounted. `prefix` and the paths of `access` already include it."""
    path_variants: PathVariants = PathVariants.REFUSE
    pages: PageSettings = PageSettings()
    data_apis: Mapping[str, DataApi] = field(default_factory=dict)
    """The data APIs that are upstreams, by name."""
    warnings: tuple[str, ...] = ()

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """The default upstream, if there is one, followed by the others."""
        default = () if self.upstream is None else (self.upstream,)
        return (*default, *self.upstreams.values())

    def audience(self, upstream: Upstream | None) -> str:
        """Return the `aud` of assertions for `upstream`, or for the surrounding app if `upstream` is None.

        Unless `signing.audience` is set, each upstream has its own audience, so that no other upstream accepts its
        assertions.
        """
        return self.signing.audience or str(self.public_url if upstream is None else upstream.origins[0])
