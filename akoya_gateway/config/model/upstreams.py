"""The values of `upstream` and `upstreams`: the apps behind the gateway, and the data APIs that it calls itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from akoya_gateway.config.model.providers import Environment
from akoya_gateway.config.model.units import Bytes, Seconds


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
