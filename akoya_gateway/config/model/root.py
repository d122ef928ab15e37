"""The whole configuration, and its smaller sections such as `tokens`, `limits`, `pages` and `logging`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from akoya_gateway.config.model.access import AccessRule, PathVariants, Redirects
from akoya_gateway.config.model.providers import Client, Connector, Environment
from akoya_gateway.config.model.sessions import Identity, Sessions
from akoya_gateway.config.model.signing import Signing
from akoya_gateway.config.model.units import Bytes, Seconds
from akoya_gateway.config.model.upstreams import DataApi, Origin, Upstream
from akoya_gateway.process_environment import ProcessEnvironment
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import TrustedPeer


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: on `host` and `port`, or on the Unix socket `path`."""

    host: str = "127.0.0.1"
    port: int = 8080
    path: str | None = None


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
    allow_client_headers: tuple[str, ...] = ()
    """Lower-case names of other headers that the gateway would drop, and that reach the app."""
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
