"""Parses the original request that a proxy describes to `/akoya/forward-auth`, and caches the result.

`gateway.forward_auth` documents the three ways to describe a request.
"""

from __future__ import annotations

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_headers import DROP, PASS, ClientHeaders, is_unlisted
from akoya_gateway.errors import UserError
from akoya_gateway.host_header import has_valid_host
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing.header_names import ASSERTION, PASSED_NAMES, SIGNATURE, SIGNATURE_INPUT, is_gateway_header

ORIGINAL_METHOD, ORIGINAL_URI = b"x-original-method", b"x-original-uri"
FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST = b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"

MAX_ENTRIES = 1024
"""Maximum number of cached requests."""
MAX_KEY_BYTES = 4096
"""Maximum size of a cached request."""

_DESCRIBING = frozenset({ORIGINAL_METHOD, ORIGINAL_URI, FORWARDED_METHOD, FORWARDED_URI})
_METHOD_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_REPLACED_HEADERS = frozenset({*PASSED_NAMES, ASSERTION, SIGNATURE, SIGNATURE_INPUT})


class InvalidOriginalRequest(UserError):
    """The proxy's description of the original request is missing or contradicts itself."""

    code = "invalid-original-request"
    title = "The request could not be understood"


class OriginalRequest:
    """The original request, and what the proxy must do with its headers.

    Instances are shared between requests: do not modify them.
    """

    __slots__ = (
        "_kept_headers",
        "_removal_headers",
        "_removed_headers",
        "headers",
        "irreplaceable",
        "method",
        "plain",
        "query",
        "raw_path",
        "websocket",
    )

    def __init__(
        self,
        request: RequestInfo,
        route: bytes,
        cookies: GatewayCookies,
        client_headers: ClientHeaders,
        identity_header: bytes | None,
    ) -> None:
        """Parse the request that `request` describes. Raises `InvalidOriginalRequest`."""
        self.method, self.raw_path, self.query = _read_request_line(request, route)
        self.headers = request.headers if _single_value(request, FORWARDED_URI) is None else _client_headers(request)
        _require_valid_host(self.headers)
        self.websocket = _is_websocket_handshake(request)
        injected = {name for name, _ in request.headers if is_gateway_header(name)}
        handling = {name: client_headers.handling(name) for name, _ in request.headers}
        dropped = {name for name, how in handling.items() if how is DROP} - _DESCRIBING
        for name in dropped:
            client_headers.log_dropped(name)
        unlisted = (
            name for name, how in handling.items() if how is not PASS and is_unlisted(name) and name != identity_header
        )
        self.irreplaceable = next(iter(injected - _REPLACED_HEADERS), None) or next(unlisted, None)
        """A header of the client that must not reach the app, and that nginx would pass on, or None.

        nginx replaces or removes only the headers named in its configuration. Another one could be taken for a gateway
        header, or name another path, method, user or address. By default nginx drops names with `_` or `.`.
        """
        sent = [value for name, value in request.headers if name == b"cookie"]
        # The session cookie must not reach the upstream (docs/design.md section 5).
        left = cookies.without_gateway_cookies(b"; ".join(sent)) if sent else b""
        self._kept_headers: Headers = [(b"cookie", left)] if left else []
        # For Traefik, which removes these names from the request unless the response contains them.
        self._kept_headers += [pair for pair in request.headers if pair[0] in client_headers.allowed]
        gone = injected | dropped
        self._removed_headers = gone | {b"cookie"} if sent and not left else gone
        self._removal_headers = _removal_headers(self._removed_headers)
        self.plain = not injected
        """True if the client sent no gateway headers."""

    def request_info(self, request: RequestInfo) -> RequestInfo:
        """Return the original request as a `RequestInfo`; `request` is the proxy's own request.

        It has no body: a body in the proxy's request is not the client's.
        """
        return RequestInfo(
            self.method,
            self.raw_path,
            self.query,
            self.headers,
            request.peer,
            request.request_id,
            self.websocket,
            peer_is_forwarded=request.peer_is_forwarded,
        )

    def response_headers(self, injected_headers: Headers) -> Headers:
        """Return the gateway headers, the client's remaining cookies and allowed headers, and the list for Envoy."""
        if self.plain:
            return injected_headers + self._kept_headers + self._removal_headers
        return (
            injected_headers
            + self._kept_headers
            + _removal_headers(self._removed_headers - {name for name, _ in injected_headers})
        )


def _removal_headers(names: set[bytes]) -> Headers:
    return [(b"x-envoy-auth-headers-to-remove", b",".join(sorted(names)))] if names else []


class OriginalRequestCache:
    """Bounded cache of `OriginalRequest`.

    Args:
        route: The forward-auth route.
        cookies: Removes the gateway's cookies.
        client_headers: Decides which headers reach the app.
        identity_header: The header in which the proxy names the app's user (`identity.header`), or None.
    """

    def __init__(
        self, route: bytes, cookies: GatewayCookies, client_headers: ClientHeaders, identity_header: str | None
    ) -> None:
        self.route = route
        self._identity_header = None if identity_header is None else identity_header.encode()
        self._client_headers = client_headers
        self._cookies = cookies
        self._entries: BoundedCache[tuple[object, ...], OriginalRequest] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES)

    def read(self, request: RequestInfo) -> OriginalRequest:
        """Return the original request that `request` describes. Raises `InvalidOriginalRequest`."""
        key = (request.method, request.raw_path, request.query, *request.headers)
        try:
            return self._entries[key]
        except KeyError:
            original = self._parse(request)
        except TypeError:
            # ASGI allows a server to pass headers as lists, which are not hashable.
            return self._parse(request)
        size = sum(len(name) + len(value) for name, value in request.headers)
        return self._entries.store(key, original, len(request.raw_path) + len(request.query) + size)

    def _parse(self, request: RequestInfo) -> OriginalRequest:
        return OriginalRequest(request, self.route, self._cookies, self._client_headers, self._identity_header)


def _read_request_line(request: RequestInfo, route: bytes) -> tuple[str, bytes, bytes]:
    """Return method, raw path and query. Raises `InvalidOriginalRequest`."""
    below = request.raw_path.removeprefix(route)
    original, forwarded = _single_value(request, ORIGINAL_URI), _single_value(request, FORWARDED_URI)
    ways = [way for way in (original, forwarded, below or None) if way is not None]
    if len(ways) != 1:
        raise InvalidOriginalRequest(
            "Describe the request in exactly one way: X-Original-URI, X-Forwarded-Uri or the path."
        )
    if below:
        uri, method = below + (b"?" + request.query if request.query else b""), request.method.encode()
    else:
        uri, method = (
            ways[0],
            _single_value(request, ORIGINAL_METHOD if original is not None else FORWARDED_METHOD) or b"",
        )
    if not method or method.translate(None, _METHOD_CHARACTERS):
        raise InvalidOriginalRequest("The original method is missing or malformed.")
    raw_path, _, query = uri.partition(b"?")
    return method.decode(), raw_path, query


def _is_websocket_handshake(request: RequestInfo) -> bool:
    """Return True for a WebSocket handshake, recognized by `Upgrade` or by its key (RFC 6455 section 4.1).

    The key is needed for proxies that do not forward `Upgrade`, such as Traefik. A script cannot send the key with
    another request, because browsers forbid scripts to set `Sec-*` headers.
    """
    upgrade = request.header(b"upgrade")
    return (upgrade is not None and upgrade.lower() == b"websocket") or request.header(b"sec-websocket-key") is not None


def _client_headers(request: RequestInfo) -> Headers:
    """Return the client's headers, with `Host` set to the authority that the client requested."""
    host = _single_value(request, FORWARDED_HOST)
    if host is None:
        return request.headers
    return [(b"host", host), *(pair for pair in request.headers if pair[0] != b"host")]


def _require_valid_host(headers: Headers) -> None:
    """Raise `InvalidOriginalRequest` if the app could take another host from the request than the proxy does.

    Some proxies join several Host headers, or a folded line, to one value (RFC 9112 section 3.2). HTTP/1.0 has none.
    """
    if not has_valid_host((name, value) for name, value in headers if value):
        raise InvalidOriginalRequest("There must be one valid Host.")


def _single_value(request: RequestInfo, name: bytes) -> bytes | None:
    values = [value for key, value in request.headers if key == name]
    if len(values) > 1:
        raise InvalidOriginalRequest(f"{name.decode()} occurs more than once.")
    return values[0] if values else None
