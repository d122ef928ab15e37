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
        b"base-path", b"base-url", b"daphne-root-path", b"document-root", b"document-uri", b"http-url",
        b"original-uri", b"original-url", b"path-info", b"path-translated", b"pathbase", b"proxy-url",
        b"raw-request-uri", b"redirect-url", b"request-path", b"request-target", b"request-uri", b"request-url",
        b"rewrite-url", b"root-path", b"script-filename", b"script-name", b"script-uri", b"script-url",
        b"unencoded-url", b"x-app-path", b"x-astro-locals", b"x-astro-path", b"x-base-path", b"x-base-url",
        b"x-context-path", b"x-couchdb-requested-path", b"x-couchdb-vhost-path", b"x-envoy-original-path",
        b"x-external-path", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-url", b"x-http-destinationurl",
        b"x-http-path-override", b"x-ingress-path", b"x-mount-path", b"x-ms-original-url",
        b"x-netlify-original-pathname", b"x-nf-original-path", b"x-original-path", b"x-original-prefix",
        b"x-original-query", b"x-original-uri", b"x-original-url", b"x-override-url", b"x-path-base", b"x-path-info",
        b"x-path-prefix", b"x-pathbase", b"x-proxy-path", b"x-proxy-prefix", b"x-proxy-url", b"x-proxycontextpath",
        b"x-proxypath", b"x-real-path", b"x-real-uri", b"x-real-url", b"x-replaced-path", b"x-request-path",
        b"x-request-uri", b"x-request-url", b"x-rewrite-path", b"x-rewrite-uri", b"x-rewrite-url", b"x-root-path",
        b"x-script-filename", b"x-script-name", b"x-script-uri", b"x-script-url", b"x-sendfile-type",
        b"x-servlet-path", b"x-traversal-path", b"x-url-prefix", b"x-waws-unencoded-url",
        # The route of a Next.js app, and its middleware, which CVE-2025-29927 skips. `x-middleware-prefetch` passes:
        # browsers send it. So does `x-sveltekit-pathname`, the page from which a remote function is called.
        b"next-resume", b"x-matched-path", b"x-middleware-invoke", b"x-middleware-next",
        b"x-middleware-override-headers", b"x-middleware-redirect", b"x-middleware-refresh", b"x-middleware-rewrite",
        b"x-middleware-set-cookie", b"x-middleware-skip", b"x-middleware-subrequest", b"x-middleware-subrequest-id",
        b"x-nextjs-matched-path", b"x-nextjs-rewrite", b"x-now-route-matches",
        # The method.
        b"http-method", b"method-override", b"override-method", b"request-method", b"x-forwarded-method",
        b"x-http-method", b"x-http-method-override", b"x-http-override", b"x-http-verb", b"x-method",
        b"x-method-override", b"x-original-method", b"x-override-method", b"x-request-method", b"x-rest-method",
        b"x-tunnel-method",
        # The rest of the CGI environment (RFC 3875 section 4.1), and `Proxy`, which becomes HTTP_PROXY (CVE-2016-5385).
        b"auth-type", b"gateway-interface", b"proxy", b"query-string", b"request-scheme", b"server-addr",
        b"server-name", b"server-port", b"server-protocol", b"server-software",
        # Plain-text HTTP/2 (RFC 7540 section 3.2.1).
        b"http2-settings",
    }
)  # fmt: skip
"""Names that change which request the app serves.

They are removed from every request, including those of trusted proxies: no proxy needs to change the path or method of
a request after it has been authorized.
"""

MOVES_PREFIXES = (
    b"ms-aspnetcore-",
    b"spring-cloud-function-",  # `spring.cloud.function.routing-expression` selects a function (CVE-2022-22963).
    b"x-accel-",
    b"x-invoke-",
    b"x-middleware-request-",
)
MOVES_SUFFIXES = (
    b"-method-override",
    b"-original-uri",
    b"-original-url",
    b"-override-method",
    b"-path-info",
    b"-path-override",
    b"-request-uri",
    b"-rewrite-url",
    b"-root-path",
    b"-script-name",
)
"""Prefixes and suffixes of further names that change which request the app serves."""

FROM_PROXIES = frozenset(
    {
        # The client's address.
        b"cdn-src-ip", b"client-ip", b"clientip", b"coming-from", b"real-ip", b"rlnclientipaddr", b"source-ip",
        b"x-bluecoat-via", b"x-client-addr", b"x-client-address", b"x-client-host", b"x-client-port", b"x-clientip",
        b"x-coming-from", b"x-comming-from", b"x-ip", b"x-ip-address", b"x-nf-client-connection-ip",
        b"x-originating-ip", b"x-peer-addr", b"x-peer-ip", b"x-proxyuser-ip", b"x-custom-ip-authorization",
        b"x-forward", b"x-forwarder-for", b"x-from-ip", b"x-real-port", b"x-source-ip", b"x-src-ip",
        b"x-sucuri-clientip", b"x-user-ip",
        # The scheme, host and port that the client used.
        b"disguised-host", b"forwarded", b"proxy-host", b"front-end-https", b"front-end-ssl", b"host-override",
        b"https", b"is-https", b"ssl-offloaded", b"use-ssl", b"usessl", b"was-default-hostname", b"x-appservice-proto",
        b"x-authority", b"x-client-proto", b"x-client-protocol", b"x-client-scheme", b"x-client-ssl", b"x-forwarded",
        b"x-forwardedfor", b"x-frontend-https", b"x-frontend-proto", b"x-frontend-scheme", b"x-host",
        b"x-host-override", b"x-http-host", b"x-http-host-override", b"x-https", b"x-is-https", b"x-is-ssl",
        b"x-override-host", b"x-proto", b"x-protocol", b"x-proxied-https", b"x-proxyhost", b"x-proxyport",
        b"x-proxyscheme", b"x-real-host", b"x-request-host", b"x-request-proto", b"x-request-scheme", b"x-scheme",
        b"x-server-addr", b"x-server-name", b"x-server-port", b"x-site-deployment-id", b"x-ssl", b"x-ssl-offload",
        b"x-ssl-offloaded", b"x-url-scheme", b"x-virtual-host",
        # The user, and the client certificate that the proxy has verified.
        b"auth-user", b"cas-user", b"logon-user", b"es-security-runas-user", b"teleport-jwt-assertion", b"client-cert",
        b"client-cert-chain", b"mellon-name-id", b"proxy-auth-cert", b"proxy-ssl-id", b"sm-universalid",
        b"sm-serversessionid", b"sm-user", b"sm-userdn", b"sm-usergroups", b"smuser", b"ssl-cert", b"ssl-cipher",
        b"ssl-cipher-usekeysize", b"ssl-session-id", b"x-anonymous-consumer", b"x-auth-audience", b"x-auth-email",
        b"x-auth-groups", b"x-auth-roles", b"x-auth-subject", b"x-auth-user", b"x-auth-userid", b"x-auth-username",
        b"x-authuser", b"x-cas-user", b"x-cert-subject", b"x-client-cert", b"x-client-certificate", b"x-client-dn",
        b"x-client-verified", b"x-client-verify", b"x-clientcert", b"x-credential-identifier",
        b"x-endpoint-api-userinfo", b"x-iis-windowsauthtoken", b"x-jwt-assertion", b"x-proxiedentitieschain",
        b"x-rh-identity", b"x-token-subject", b"x-ms-forwarded-client-cert", b"x-proxy-roles", b"x-proxy-user",
        b"x-rapidapi-user", b"x-ssl-cert", b"x-ssl-cipher", b"x-sso-user", b"x-tls-client-cert", b"x-token-user-email",
        b"x-token-user-name", b"x-trusted-user", b"x-userinfo", b"x-vouch-user",
        # The trace that the request belongs to (W3C Trace Context section 3, and vendors' own). With a sampled trace of
        # its own choice a client could make the app record every request, and join its requests to other traces.
        b"b3", b"elastic-apm-traceparent", b"grpc-trace-bin", b"newrelic", b"sentry-trace", b"traceparent",
        b"tracestate", b"uber-trace-id", b"x-cloud-trace-context", b"x-dynatrace", b"x-ot-span-context",
    }
)  # fmt: skip
"""Names that are passed on only if the request comes from one of `trusted_proxies`."""

DESCRIBING_PREFIXES = (
    # Headers in which proxies in general describe the client's request.
    b"forwarded-", b"remote-", b"x-external-", b"x-forward-", b"x-forwarded-", b"x-orig-", b"x-original-",
    b"x-remote-", b"x-rewrite-", b"x-ssl-", b"ssl-client-", b"client-cert-", b"x-client-cert-", b"x-tls-client-",
    # Headers in which authentication proxies name the user.
    b"iv-", b"mellon-", b"oam-", b"oidc-", b"osso-", b"shib-", b"tailscale-user-", b"x-auth-couchdb-",
    b"x-auth-request-", b"x-authenticated-", b"x-authentik-", b"x-consumer-", b"x-goog-authenticated-user-",
    b"x-goog-iap-", b"x-ms-client-principal", b"x-ms-token-", b"x-pomerium-", b"x-token-user-", b"x-vouch-",
    b"x-webauth-",
)  # fmt: skip
HOSTING_PREFIXES = (
    # Headers in which the proxies of hosting services describe the request.
    b"akamai-", b"cf-", b"cloudfront-", b"fastly-", b"fly-", b"incap-", b"x-akamai-", b"x-amzn-", b"x-apigateway-",
    b"x-appengine-", b"x-arr-", b"x-azure-", b"x-cloudscheduler", b"x-cloudtasks-", b"x-google-", b"x-iisnode-",
    b"x-vercel-forwarded-", b"x-vercel-proxied-", b"x-waws-", b"x-weblogic-", b"wl-proxy-",
    b"-ws",  # `$WSRU` and similar, from which WebSphere takes the user, address and scheme.
    # The mount point of RStudio's products.
    b"rstudio-connect-", b"x-rstudio-",
    # Headers with which service meshes describe a request or are controlled.
    b"l5d-", b"x-envoy-", b"x-istio-",
    # Headers of tracing systems.
    b"ot-tracer-", b"uberctx-", b"x-b3-", b"x-datadog-",
)  # fmt: skip
PROXY_PREFIXES = DESCRIBING_PREFIXES + HOSTING_PREFIXES
PROXY_SUFFIXES = (
    b"-client-ip",
    b"-connecting-ip",
    b"-forwarded-for",
    b"-forwarded-host",
    b"-forwarded-proto",
    b"-real-ip",
    b"-remote-addr",
    b"-remote-ip",
    b"-remote-user",
)
"""Prefixes and suffixes of further names that are passed on only if the request comes from one of `trusted_proxies`."""

SENT_BY_NGINX = frozenset(
    {
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-method", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-forwarded-proto", b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-forwarded-uri",
        b"x-original-method", b"x-original-uri", b"x-real-ip",
    }
)  # fmt: skip
"""Names that nginx removes from the client's request and may set in its own requests for forward-auth."""

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


def is_unlisted(name: bytes) -> bool:
    """Return True if the name must not reach the app, and the configuration files of nginx do not remove it.

    nginx has no patterns, so its files contain only the listed names, and those names of families that are in use.
    Returns False for names of hosting services, service meshes and tracing systems, which may add new names to requests
    at any time.
    """
    folded, lower = fold(name), name.lower()
    if lower in MOVES_THE_REQUEST or lower in FROM_PROXIES or lower in SENT_BY_NGINX:
        return False
    if folded != lower:
        return is_known(name)
    is_describing = folded.startswith(DESCRIBING_PREFIXES) or folded.endswith(PROXY_SUFFIXES)
    return is_describing or _family(folded) is DROP


def is_ours_to_app(name: bytes) -> bool:
    """Return True if the name, in any spelling, is one that the gateway sends to apps (`Akoya-*`)."""
    folded = fold(name)
    return folded[:6] == b"akoya-" or folded == b"akoya"


def _family(folded: bytes) -> Handling:
    if folded in MOVES_THE_REQUEST or folded.startswith(MOVES_PREFIXES):
        return DROP
    if folded in FROM_PROXIES or folded.startswith(PROXY_PREFIXES):
        return Handling.FROM_PROXIES
    if folded.endswith(MOVES_SUFFIXES):
        return DROP
    return Handling.FROM_PROXIES if folded.endswith(PROXY_SUFFIXES) else PASS


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
