"""What a proxy asks at `/akoya/forward-auth`: the request it describes, read once for all questions that are the same.

See `gateway.forward_auth` for the three ways to describe one.
"""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.access.request import Ask, Headers
from akoya_gateway.client_headers import DROP, ClientHeaders, is_alias
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.signing.header_names import ASSERTION, PASSED_NAMES, SIGNATURE, SIGNATURE_INPUT, is_ours

ORIGINAL_METHOD, ORIGINAL_URI = b"x-original-method", b"x-original-uri"
FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST = b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"

REMEMBERED = 1024
"""Questions kept at hand, first in, first out."""
LARGEST = 4096
"""Bytes of one that is kept."""

_DESCRIBING = frozenset({ORIGINAL_METHOD, ORIGINAL_URI, FORWARDED_METHOD, FORWARDED_URI})
_METHOD_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_REPLACED = frozenset({*PASSED_NAMES, ASSERTION, SIGNATURE, SIGNATURE_INPUT})


class BadDescription(UserError):
    """The proxy's description of the original request is missing or contradicts itself."""

    code = "bad-description"
    title = "The request could not be understood"


class Question:
    """The original request, and what the proxy has to be told of its headers. Shared, so nobody changes it."""

    __slots__ = (
        "_gone",
        "_left",
        "_removal",
        "headers",
        "method",
        "plain",
        "query",
        "raw_path",
        "replaceable",
        "websocket",
    )

    def __init__(self, ask: Ask, route: bytes, cookies: CookieJar, client_headers: ClientHeaders) -> None:
        """Raises `BadDescription`."""
        self.method, self.raw_path, self.query = _original(ask, route)
        self.headers = ask.headers if _one(ask, FORWARDED_URI) is None else _as_sent(ask)
        self.websocket = _opens_a_websocket(ask)
        ours = {name for name, _ in ask.headers if is_ours(name)}
        dropped = {name for name, _ in ask.headers if client_headers.handling(name) is DROP} - _DESCRIBING
        self.replaceable = ours <= _REPLACED and not any(map(is_alias, dropped))
        """nginx replaces headers that its configuration names, and no others. False: there is one of another name that
        an upstream could take for ours, or for another that the gateway knows (nginx drops names with `_` or `.` by
        default)."""
        sent = [value for name, value in ask.headers if name == b"cookie"]
        # The session cookie is for the gateway alone (design.md section 5).
        left = cookies.without_ours(b"; ".join(sent)) if sent else b""
        self._left: Headers = [(b"cookie", left)] if left else []
        gone = ours | dropped
        self._gone = gone | {b"cookie"} if sent and not left else gone
        self._removal = _removal(self._gone)
        self.plain = not ours
        """The client sent no header of ours."""

    def original(self, ask: Ask) -> Ask:
        """As a request of its own; `ask` asked. The body at hand is the question's."""
        return Ask(
            self.method,
            self.raw_path,
            self.query,
            self.headers,
            ask.peer,
            ask.request_id,
            self.websocket,
            told=ask.told,
        )

    def answered(self, ours: Headers) -> Headers:
        """Our headers, what is left of the client's cookies, and for Envoy the list of what it has to take away."""
        if self.plain:
            return ours + self._left + self._removal
        return ours + self._left + _removal(self._gone - {name for name, _ in ours})


def _removal(names: set[bytes]) -> Headers:
    return [(b"x-envoy-auth-headers-to-remove", b",".join(sorted(names)))] if names else []


class Questions:
    """A bounded memory of them. `route`: the path of the question itself."""

    def __init__(self, route: bytes, cookies: CookieJar, client_headers: ClientHeaders) -> None:
        self.route = route
        self._client_headers = client_headers
        self._cookies = cookies
        self._kept: OrderedDict[tuple[object, ...], Question] = OrderedDict()

    def read(self, ask: Ask) -> Question:
        """Raises `BadDescription`."""
        key = (ask.method, ask.raw_path, ask.query, *ask.headers)
        try:
            return self._kept[key]
        except KeyError:
            question = Question(ask, self.route, self._cookies, self._client_headers)
        except TypeError:
            # ASGI lets a server give lists for pairs.
            return Question(ask, self.route, self._cookies, self._client_headers)
        if len(ask.raw_path) + len(ask.query) + sum(len(name) + len(value) for name, value in ask.headers) <= LARGEST:
            self._kept[key] = question
            if len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        return question


def _original(ask: Ask, route: bytes) -> tuple[str, bytes, bytes]:
    """Method, raw path and query. Raises `BadDescription`."""
    below = ask.raw_path.removeprefix(route)
    original, forwarded = _one(ask, ORIGINAL_URI), _one(ask, FORWARDED_URI)
    ways = [way for way in (original, forwarded, below or None) if way is not None]
    if len(ways) != 1:
        raise BadDescription("Describe the request in exactly one way: X-Original-URI, X-Forwarded-Uri or the path.")
    if below:
        uri, method = below + (b"?" + ask.query if ask.query else b""), ask.method.encode()
    else:
        uri, method = ways[0], _one(ask, ORIGINAL_METHOD if original is not None else FORWARDED_METHOD) or b""
    if not method or method.translate(None, _METHOD_CHARACTERS):
        raise BadDescription("The original method is missing or malformed.")
    raw_path, _, query = uri.partition(b"?")
    return method.decode(), raw_path, query


def _opens_a_websocket(ask: Ask) -> bool:
    """By `Upgrade`, or by the key of the handshake (RFC 6455 section 4.1) where the proxy keeps `Upgrade` to itself, as
    Traefik does. No script can send that key with another request: a browser keeps `Sec-*` from it."""
    upgrade = ask.header(b"upgrade")
    return (upgrade is not None and upgrade.lower() == b"websocket") or ask.header(b"sec-websocket-key") is not None


def _as_sent(ask: Ask) -> Headers:
    """The client's headers, with the authority it asked for."""
    host = _one(ask, FORWARDED_HOST)
    if host is None:
        return ask.headers
    return [(b"host", host), *(pair for pair in ask.headers if pair[0] != b"host")]


def _one(ask: Ask, name: bytes) -> bytes | None:
    values = [value for key, value in ask.headers if key == name]
    if len(values) > 1:
        raise BadDescription(f"{name.decode()} occurs more than once.")
    return values[0] if values else None
