"""Parses the request headers the gateway needs, and caches the result by the exact list of headers.

A browser sends the same headers with every request of a page. Parsing nine of them takes 3.3 us, finding the cached
result takes 0.4 us (on the machine of `docs/performance.md`).
"""

from __future__ import annotations

from akoya_gateway.access.request import Headers, has_method_override, host_of
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_headers import ClientHeaders
from akoya_gateway.config.model import Config, IdentitySource
from akoya_gateway.errors import UserError
from akoya_gateway.host_header import has_valid_host
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing.header_names import REQUEST_ID, strip
from akoya_gateway.signing.message_signatures import authority as without_default_port

MAX_ENTRIES = 1024
"""Maximum number of cached header lists."""
MAX_KEY_BYTES = 4096
"""Maximum size of a cached header list: at most 8 MB for all lists, and twice that for the stripped copies."""
MAX_HEADERS = 100
"""Maximum number of headers in a cached list. Short headers take up to ten times their size in memory."""


_BODY_HEADERS = (b"content-length", b"transfer-encoding")

Authorities = tuple[bytes, bytes]
"""`@authority` as seen by an upstream reached over http, and as seen by one reached over https.

They differ because each scheme omits its own default port. Index it with `Upstream.secure`. Both are empty if there is
not exactly one valid `Host`.
"""


def authorities(headers: Headers) -> Authorities:
    """Return the `@authority` values for http and https."""
    host = host_of(headers)
    return without_default_port(host, b"http"), without_default_port(host, b"https")


def client_headers_of(config: Config) -> ClientHeaders:
    """Return the policy for client headers. A JWT that identifies the user is passed on unchanged."""
    jwt_header = config.identity.header if config.identity.source is IdentitySource.JWT else None
    return ClientHeaders((*config.allow_underscore_headers, *config.allow_client_headers), jwt_header)


class RequestHeaders:
    """Parsed request headers. Instances are shared between requests: do not modify them."""

    __slots__ = (
        "_client_headers",
        "_stripped",
        "authorities",
        "bodiless",
        "from_client",
        "from_proxy",
        "override",
        "request_id",
        "session",
    )

    def __init__(self, headers: Headers, cookies: GatewayCookies, client_headers: ClientHeaders) -> None:
        self.session = cookies.session(headers)
        """Value of the session cookie. None if there is no session cookie or more than one."""
        self.authorities = authorities(headers)
        self.override = has_method_override(headers)
        """True if a header overrides the request method."""
        self.bodiless = not any(name in _BODY_HEADERS for name, _ in headers)
        """True if no body follows in HTTP/1.1 (RFC 9112 section 6.3)."""
        self.request_id = next((value for name, value in headers if name == REQUEST_ID), None)
        """Value of the first `X-Request-Id`, or None. Not validated."""
        self._stripped = strip(headers, cookies.without_gateway_cookies)
        self._client_headers = client_headers
        self.from_proxy: Headers = []
        """The client headers passed to the app if the peer is one of `trusted_proxies`. Empty until `filter_for`."""
        self.from_client: Headers = []
        """The client headers passed to the app if the peer is not trusted. Empty until `filter_for`."""

    def filter_for(self, *, is_trusted: bool) -> Headers:
        """Fill and return `from_proxy` or `from_client`.

        This is done when one is first needed, because the headers that it lacks are logged. Forward-auth needs neither.
        """
        passed = self._client_headers.passed(self._stripped, from_proxy=is_trusted)
        if is_trusted:
            self.from_proxy = passed
        else:
            self.from_client = passed
        return passed

    def require_valid_host(self) -> None:
        """Raise `UserError` if the app could take another host or path from `Host`."""
        if not has_valid_host(self._stripped):
            raise UserError("There must be at most one Host, and it must be valid.", code="bad-host")


class RequestHeaderCache:
    """Bounded cache of `RequestHeaders`."""

    def __init__(self, cookies: GatewayCookies, client_headers: ClientHeaders) -> None:
        self._cookies = cookies
        self._client_headers = client_headers
        self._entries: BoundedCache[tuple[tuple[bytes, bytes], ...], RequestHeaders] = BoundedCache(
            MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True
        )

    def read(self, headers: Headers) -> RequestHeaders:
        """Return the parsed form of these headers."""
        key = tuple(headers)
        try:
            return self._entries[key]
        except KeyError:
            pass
        except TypeError:
            # ASGI allows a server to pass headers as lists, which are not hashable.
            return RequestHeaders([(name, value) for name, value in headers], self._cookies, self._client_headers)
        request_headers = RequestHeaders(headers, self._cookies, self._client_headers)
        if len(headers) > MAX_HEADERS:
            return request_headers
        return self._entries.store(key, request_headers, sum(len(name) + len(value) for name, value in headers))
