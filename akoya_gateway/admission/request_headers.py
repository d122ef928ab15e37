"""What the header fields of a request say to us, read once for all requests that have the very same.

A browser sends the same fields with every request of a page. Reading nine of them takes 3.3 us, finding what was read
0.4 us (on the machine of `docs/performance.md`).
"""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.access.request import Headers, has_method_override, host_of
from akoya_gateway.client_headers import ClientHeaders
from akoya_gateway.config.model import Config, IdentitySource
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing.header_names import strip
from akoya_gateway.signing.message_signatures import authority as without_default_port

MAX_ENTRIES = 1024
"""Sets of fields kept at hand."""
MAX_KEY_BYTES = 4096
"""Bytes of a set that is kept: 8 MB in all at the most, twice over for what is stripped."""
MAX_HEADERS = 100
"""Fields of one that is kept: a field takes ten times its bytes if it has few."""


_BODY_HEADERS = (b"content-length", b"transfer-encoding")

Authorities = tuple[bytes, bytes]
"""`@authority` as an upstream will see it that is spoken to in http, and in https: each scheme has a default port to
leave out. To be indexed by `Upstream.secure`. Empty where there is not exactly one good `Host`."""


def authorities(headers: Headers) -> Authorities:
    host = host_of(headers)
    return without_default_port(host, b"http"), without_default_port(host, b"https")


def client_headers_of(config: Config) -> ClientHeaders:
    """Which of a client's headers pass under this configuration. A JWT that names the user goes on as it came."""
    jwt_header = config.identity.header if config.identity.source is IdentitySource.JWT else None
    return ClientHeaders(config.allow_underscore_headers, jwt_header)


_BY_DEFAULT = ClientHeaders()


class RequestHeaders:
    """Judged once; shared, so nobody changes it."""

    __slots__ = ("authorities", "bodiless", "onward_from_client", "override", "session", "upstream_headers")

    def __init__(self, headers: Headers, cookies: GatewayCookies, client_headers: ClientHeaders = _BY_DEFAULT) -> None:
        self.session = cookies.session(headers)
        """The value of the session cookie, None if there is none or two."""
        self.authorities = authorities(headers)
        self.override = has_method_override(headers)
        """A header tells the app of another method than the request's."""
        self.bodiless = not any(name in _BODY_HEADERS for name, _ in headers)
        """No body follows in HTTP/1.1 (RFC 9112 section 6.3)."""
        stripped = strip(headers, cookies.without_gateway_cookies)
        passes = client_headers.passes
        self.upstream_headers = [pair for pair in stripped if passes(pair[0], from_proxy=True)]
        """What of them goes to the app where the peer is one of `trusted_proxies`."""
        self.onward_from_client = [pair for pair in self.upstream_headers if passes(pair[0], from_proxy=False)]
        """What goes to the app from any other peer."""


class RequestHeaderCache:
    """A bounded memory of `RequestHeaders`, first in, first out."""

    def __init__(self, cookies: GatewayCookies, client_headers: ClientHeaders = _BY_DEFAULT) -> None:
        self._cookies = cookies
        self._client_headers = client_headers
        self._entries: OrderedDict[tuple[tuple[bytes, bytes], ...], RequestHeaders] = OrderedDict()

    def read(self, headers: Headers) -> RequestHeaders:
        key = tuple(headers)
        try:
            return self._entries[key]
        except KeyError:
            pass
        except TypeError:
            # ASGI lets a server give lists for pairs.
            return RequestHeaders([(name, value) for name, value in headers], self._cookies, self._client_headers)
        request_headers = RequestHeaders(headers, self._cookies, self._client_headers)
        if len(headers) <= MAX_HEADERS and sum(len(name) + len(value) for name, value in headers) <= MAX_KEY_BYTES:
            self._entries[key] = request_headers
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return request_headers
