"""Decides by name which request headers of a client reach the app.

Servers and frameworks let request headers override the path, mount point, method, user, client address or scheme. A
server that turns headers into variables (CGI, WSGI, PHP) does not distinguish `-` from `_` and other punctuation. With
such a header the app would serve a different request from the one that was authorized and signed: gunicorn trusts
`SCRIPT_NAME`, daphne trusts `Daphne-Root-Path`. This module has the only list of these names. Every entry point and the
header writer use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.log import logger

log = logger("akoya_gateway.client_headers")

LOGGED_NAMES = 100
"""Number of dropped names that are logged under one configuration. Further names are dropped without a log entry."""
MAX_CACHED_NAMES, MAX_CACHED_NAME_BYTES = 4096, 256

MOVES_THE_REQUEST = frozenset(
    {
        # The path, or the prefix at which an app is mounted.
        b"daphne-root-path", b"document-root", b"document-uri", b"path-info", b"path-translated",
        b"request-path", b"request-uri", b"request-url", b"root-path", b"script-filename", b"script-name",
        b"script-uri", b"script-url", b"unencoded-url", b"x-base-path", b"x-context-path",
        b"x-envoy-original-path", b"x-external-path", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-url",
        b"x-http-destinationurl", b"x-http-path-override", b"x-ingress-path", b"x-ms-original-url",
        b"x-original-path", b"x-original-prefix", b"x-original-query", b"x-original-uri", b"x-original-url",
        b"x-override-url", b"x-path-info", b"x-proxy-url", b"x-proxycontextpath", b"x-proxypath",
        b"x-replaced-path", b"x-request-uri", b"x-request-url", b"x-rewrite-path", b"x-rewrite-uri", b"x-rewrite-url",
        b"x-root-path", b"x-script-name", b"x-sendfile-type", b"x-accel-mapping", b"x-waws-unencoded-url",
        # The route of a Next.js app, and its middleware, which CVE-2025-29927 skips.
        b"x-invoke-path", b"x-invoke-query", b"x-matched-path", b"x-middleware-rewrite", b"x-middleware-subrequest",
        b"x-now-route-matches",
        # The method.
        b"request-method", b"x-forwarded-method", b"x-http-method", b"x-http-method-override", b"x-method-override",
        b"x-original-method", b"x-override-method",
        # The rest of the CGI environment (RFC 3875 section 4.1), and `Proxy`, which becomes HTTP_PROXY (CVE-2016-5385).
        b"auth-type", b"gateway-interface", b"proxy", b"query-string", b"request-scheme", b"server-name",
        b"server-port", b"server-protocol", b"server-software",
        # Plain-text HTTP/2 (RFC 7540 section 3.2.1).
        b"http2-settings",
    }
)  # fmt: skip
"""Names that change which request the app serves.

They are removed from every request, including those of trusted proxies: no proxy needs to change the path or method of
a request after it has been authorized.
"""

_MOVES_PREFIXES = (b"ms-aspnetcore-", b"x-accel-")

FROM_PROXIES = frozenset(
    {
        # The client's address.
        b"ali-cdn-real-ip", b"cdn-src-ip", b"cf-connecting-ip", b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"cf-visitor",
        b"client-ip", b"cloudfront-viewer-address", b"do-connecting-ip", b"fastly-client-ip", b"fly-client-ip",
        b"forwarded", b"forwarded-for", b"http-client-ip", b"incap-client-ip", b"proxy-client-ip", b"real-ip",
        b"remote-addr", b"remote-host", b"remote-ip", b"remote-port", b"true-client-ip", b"x-appengine-remote-addr",
        b"x-appengine-user-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-client-ip", b"x-client-port",
        b"x-cluster-client-ip", b"x-nf-client-connection-ip", b"x-originating-ip",
        b"x-proxyuser-ip", b"x-real-ip", b"x-real-port", b"x-remote-addr", b"x-remote-host", b"x-remote-ip",
        b"x-remote-port", b"x-sucuri-clientip", b"x-true-client-ip", b"x-vercel-forwarded-for",
        # The scheme, host and port that the client used.
        b"cloudfront-forwarded-proto", b"fly-forwarded-proto", b"front-end-https", b"https", b"x-arr-ssl",
        b"x-forwarded", b"x-host", b"x-host-override", b"x-http-host-override", b"x-https",
        b"x-proxied-https", b"x-proxyhost", b"x-proxyport", b"x-proxyscheme", b"x-scheme", b"x-ssl", b"x-url-scheme",
        # The user, and the client certificate that the proxy has verified.
        b"auth-user", b"client-cert", b"client-cert-chain", b"remote-email", b"remote-groups", b"remote-ident",
        b"remote-name", b"remote-user", b"x-amzn-oidc-identity", b"x-arr-clientcert", b"x-auth-email",
        b"x-auth-groups", b"x-auth-roles", b"x-auth-user", b"x-auth-username",
        b"x-authenticated-groups", b"x-authenticated-roles", b"x-authenticated-user", b"x-authenticated-userid",
        b"x-authenticated-email", b"x-client-cert", b"x-client-certificate", b"x-client-dn", b"x-client-verify",
        b"x-consumer-custom-id", b"x-consumer-groups", b"x-consumer-id", b"x-consumer-username",
        b"x-credential-identifier", b"x-iis-windowsauthtoken", b"x-proxy-user", b"x-remote-email",
        b"x-remote-groups", b"x-remote-name", b"x-remote-user", b"x-token-user-email", b"x-token-user-name",
        b"x-webauth-email", b"x-webauth-groups", b"x-webauth-name", b"x-webauth-user",
        b"cf-access-authenticated-user-email", b"x-vouch-user",
        # The trace that the request belongs to (W3C Trace Context section 3). With a sampled trace of its own choice a
        # client could make the app record every request, and join its requests to the traces of others.
        b"traceparent", b"tracestate",
    }
)  # fmt: skip
"""Names that are passed on only if the request comes from one of `trusted_proxies`."""

_PROXY_PREFIXES = (
    b"x-forwarded-",
    b"x-original-",
    b"x-rewrite-",
    b"x-envoy-",
    b"x-auth-request-",
    b"x-authentik-",
    b"x-goog-authenticated-user-",
    b"x-ms-client-principal",
    b"x-remote-user-",
    b"x-ssl-client-",
    b"ssl-client-",
    b"tailscale-user-",
    b"wl-proxy-",
    b"-ws",  # `$WSRU` and similar, from which WebSphere takes the user, address and scheme.
)

PROTECTED = frozenset(
    {
        b"authorization", b"connection", b"content-digest", b"content-encoding", b"content-length", b"content-type",
        b"cookie", b"expect", b"host", b"keep-alive", b"origin", b"proxy-authenticate", b"proxy-authentication-info",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"via", b"x-akoya-answer", b"x-request-id",
    }
)  # fmt: skip
"""Known names that pass if they are spelled with `-`. Other spellings are dropped."""

_GATEWAY_PREFIXES = (b"akoya", b"signature")
_FOLDED = bytes(byte if chr(byte).isalnum() and byte < 0x80 else 0x2D for byte in range(256))


class Handling(IntEnum):
    """What the gateway does with a header. `FROM_PROXIES`: pass it on only from a trusted proxy."""

    PASS = 0
    FROM_PROXIES = 1
    DROP = 2


PASS, DROP = Handling.PASS, Handling.DROP


def fold(name: bytes) -> bytes:
    """Return the name as a server that turns headers into variables may see it.

    The result is in lower case, and everything but ASCII letters and digits is replaced with `-`.
    """
    return name.lower().translate(_FOLDED)


def is_known(name: bytes) -> bool:
    """Return True if the name, in any spelling, has a meaning for the gateway or is listed in this module."""
    folded = fold(name)
    return folded.startswith(_GATEWAY_PREFIXES) or folded in PROTECTED or _family(folded) is not PASS


def is_alias(name: bytes) -> bool:
    """Return True if the name is an unusual spelling of a known name, which no legitimate client sends."""
    return fold(name) != name.lower() and is_known(name)


def is_ours_to_app(name: bytes) -> bool:
    """Return True if the name, in any spelling, is one that the gateway sends to apps (`Akoya-*`)."""
    folded = fold(name)
    return folded[:6] == b"akoya-" or folded == b"akoya"


def _family(folded: bytes) -> Handling:
    if folded in MOVES_THE_REQUEST or folded.startswith(_MOVES_PREFIXES):
        return DROP
    if folded in FROM_PROXIES or folded.startswith(_PROXY_PREFIXES):
        return Handling.FROM_PROXIES
    return PASS


class ClientHeaders:
    """Decides about the headers under one configuration. Results are cached by name.

    Args:
        allowed: lower-case names with `_` that pass (`allow_underscore_headers`).
        identity: the header that identifies the app's user, or None. It passes here because it is checked separately.
    """

    __slots__ = ("_handling", "_logged", "_passed")

    def __init__(self, allowed: Iterable[str] = (), identity: str | None = None) -> None:
        self._passed = frozenset(name.encode() for name in (*allowed, *([identity] if identity else [])))
        self._logged: set[bytes] = set()
        self._handling: BoundedCache[bytes, Handling] = BoundedCache(MAX_CACHED_NAMES, MAX_CACHED_NAME_BYTES)

    def handling(self, name: bytes) -> Handling:
        """Return what to do with a header of this name. Case is ignored."""
        cached = self._handling.get(name)
        return self._handling.store(name, self._decide(name), len(name)) if cached is None else cached

    def passes(self, name: bytes, *, from_proxy: bool) -> bool:
        """Return True if a header of this name reaches the app.

        Args:
            name: the header's name, in any case.
            from_proxy: True if the peer is one of `trusted_proxies`.
        """
        handling = self.handling(name)
        return handling is PASS or (from_proxy and handling is not DROP)

    def _decide(self, name: bytes) -> Handling:
        lower = name.lower()
        if lower in self._passed:
            return PASS
        folded = lower.translate(_FOLDED)
        if b"_" in lower:
            self._log_once(lower)
            return DROP
        family = _family(folded)
        if folded == lower or lower[:1] == b"$":
            return family
        return DROP if family is not PASS or folded in PROTECTED else PASS

    def _log_once(self, name: bytes) -> None:
        """Log that a header is dropped, once for each name and for at most `LOGGED_NAMES` names."""
        if name in self._logged or len(self._logged) >= LOGGED_NAMES:
            return
        self._logged.add(name)
        log.warning("client header dropped", header=name[:64].decode("latin-1"), setting="allow_underscore_headers")
