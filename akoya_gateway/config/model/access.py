"""The values of `access` and `redirects`: the rules for requests, and where browsers may be redirected."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.config.model.upstreams import DataApi, Upstream


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
