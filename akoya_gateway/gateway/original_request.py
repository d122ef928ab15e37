"""What a proxy asks at `/akoya/forward-auth`: the request it describes, read once for all questions that are the same.

See `gateway.forward_auth` for the three ways to describe one.
"""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.client_headers import DROP, ClientHeaders, is_alias
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing.header_names import ASSERTION, PASSED_NAMES, SIGNATURE, SIGNATURE_INPUT, is_gateway_header

ORIGINAL_METHOD, ORIGINAL_URI = b"x-original-method", b"x-original-uri"
FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST = b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"

MAX_ENTRIES = 1024
"""Questions kept at hand, first in, first out."""
MAX_KEY_BYTES = 4096
"""Bytes of one that is kept."""

_DESCRIBING = frozenset({ORIGINAL_METHOD, ORIGINAL_URI, FORWARDED_METHOD, FORWARDED_URI})
_METHOD_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_REPLACED_HEADERS = frozenset({*PASSED_NAMES, ASSERTION, SIGNATURE, SIGNATURE_INPUT})


class InvalidOriginalRequest(UserError):
    """The proxy's description of the original request is missing or contradicts itself."""

    code = "invalid-original-request"
    title = "The request could not be understood"


class OriginalRequest:
    """The original request, and what the proxy has to be told of its headers. Shared, so nobody changes it."""

    __slots__ = (
        "_kept_headers",
        "_removal_headers",
        "_removed_headers",
        "headers",
        "method",
        "plain",
        "query",
        "raw_path",
        "replaceable",
        "websocket",
    )

    def __init__(
        self, request: RequestInfo, route: bytes, cookies: GatewayCookies, client_headers: ClientHeaders
    ) -> None:
        """Raises `InvalidOriginalRequest`."""
        self.method, self.raw_path, self.query = _read_request_line(request, route)
        self.headers = request.headers if _single_value(request, FORWARDED_URI) is None else _client_headers(request)
        self.websocket = _is_websocket_handshake(request)
        injected = {name for name, _ in request.headers if is_gateway_header(name)}
        dropped = {name for name, _ in request.headers if client_headers.handling(name) is DROP} - _DESCRIBING
        self.replaceable = injected <= _REPLACED_HEADERS and not any(map(is_alias, dropped))
        """nginx replaces headers that its configuration names, and no others. False: there is one of another name that
        an upstream could take for ours, or for another that the gateway knows (nginx drops names with `_` or `.` by
        default)."""
        sent = [value for name, value in request.headers if name == b"cookie"]
        # The session cookie is for the gateway alone (design.md section 5).
        left = cookies.without_gateway_cookies(b"; ".join(sent)) if sent else b""
        self._kept_headers: Headers = [(b"cookie", left)] if left else []
        gone = injected | dropped
        self._removed_headers = gone | {b"cookie"} if sent and not left else gone
        self._removal_headers = _removal_headers(self._removed_headers)
        self.plain = not injected
        """The client sent no header of ours."""

    def request_info(self, request: RequestInfo) -> RequestInfo:
        """As a request of its own; `request` asked. The body at hand is the question's."""
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
        """Our headers, what is left of the client's cookies, and for Envoy the list of what it has to take away."""
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
    """A bounded memory of them. `route`: the path of the question itself."""

    def __init__(self, route: bytes, cookies: GatewayCookies, client_headers: ClientHeaders) -> None:
        self.route = route
        self._client_headers = client_headers
        self._cookies = cookies
        self._entries: OrderedDict[tuple[object, ...], OriginalRequest] = OrderedDict()

    def read(self, request: RequestInfo) -> OriginalRequest:
        """Raises `InvalidOriginalRequest`."""
        key = (request.method, request.raw_path, request.query, *request.headers)
        try:
            return self._entries[key]
        except KeyError:
            original = OriginalRequest(request, self.route, self._cookies, self._client_headers)
        except TypeError:
            # ASGI lets a server give lists for pairs.
            return OriginalRequest(request, self.route, self._cookies, self._client_headers)
        if (
            len(request.raw_path) + len(request.query) + sum(len(name) + len(value) for name, value in request.headers)
            <= MAX_KEY_BYTES
        ):
            self._entries[key] = original
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return original


def _read_request_line(request: RequestInfo, route: bytes) -> tuple[str, bytes, bytes]:
    """Method, raw path and query. Raises `InvalidOriginalRequest`."""
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
    """By `Upgrade`, or by the key of the handshake (RFC 6455 section 4.1) where the proxy keeps `Upgrade` to itself, as
    Traefik does. No script can send that key with another request: a browser keeps `Sec-*` from it."""
    upgrade = request.header(b"upgrade")
    return (upgrade is not None and upgrade.lower() == b"websocket") or request.header(b"sec-websocket-key") is not None


def _client_headers(request: RequestInfo) -> Headers:
    """The client's headers, with the authority it asked for."""
    host = _single_value(request, FORWARDED_HOST)
    if host is None:
        return request.headers
    return [(b"host", host), *(pair for pair in request.headers if pair[0] != b"host")]


def _single_value(request: RequestInfo, name: bytes) -> bytes | None:
    values = [value for key, value in request.headers if key == name]
    if len(values) > 1:
        raise InvalidOriginalRequest(f"{name.decode()} occurs more than once.")
    return values[0] if values else None
