"""The frozen result of loading a configuration, which every other module reads.

Nothing is validated here: `config.loader` returns only valid objects. Durations are in seconds, sizes in bytes. The
names are those of `gateway.yaml`, where each setting is described in full (`docs/configuration.md`).

The classes are in a module for each section of the file. Import them from here.
"""

from __future__ import annotations

from akoya_gateway.config.model.access import (
    AccessRule,
    GrantSelector,
    GrantSource,
    Otherwise,
    PathVariants,
    Redirects,
    Require,
)
from akoya_gateway.config.model.providers import (
    Bearer,
    Client,
    ClientAuthentication,
    Connector,
    Dialect,
    Environment,
    ErrorCategory,
    ErrorRule,
    OtherLogin,
)
from akoya_gateway.config.model.root import (
    Config,
    Limits,
    Listen,
    LogFormat,
    Logging,
    PageColors,
    PageLinks,
    PageSettings,
    Tokens,
    Verify,
)
from akoya_gateway.config.model.sessions import (
    Cookie,
    EncryptionKey,
    Identity,
    IdentitySource,
    SameSite,
    Sessions,
    key_id,
)
from akoya_gateway.config.model.signing import InProcess, Signing, SigningAlgorithm, SigningKey, SigningScheme
from akoya_gateway.config.model.units import Bytes, Seconds
from akoya_gateway.config.model.upstreams import DataApi, Intent, Origin, Upstream, UpstreamTLS, WebSocketBounds

__all__ = [
    "AccessRule",
    "Bearer",
    "Bytes",
    "Client",
    "ClientAuthentication",
    "Config",
    "Connector",
    "Cookie",
    "DataApi",
    "Dialect",
    "EncryptionKey",
    "Environment",
    "ErrorCategory",
    "ErrorRule",
    "GrantSelector",
    "GrantSource",
    "Identity",
    "IdentitySource",
    "InProcess",
    "Intent",
    "Limits",
    "Listen",
    "LogFormat",
    "Logging",
    "Origin",
    "OtherLogin",
    "Otherwise",
    "PageColors",
    "PageLinks",
    "PageSettings",
    "PathVariants",
    "Redirects",
    "Require",
    "SameSite",
    "Seconds",
    "Sessions",
    "Signing",
    "SigningAlgorithm",
    "SigningKey",
    "SigningScheme",
    "Tokens",
    "Upstream",
    "UpstreamTLS",
    "Verify",
    "WebSocketBounds",
    "key_id",
]
