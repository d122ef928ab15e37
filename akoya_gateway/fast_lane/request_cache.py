"""Parses simple requests line by line and caches each parsed line.

Most lines of a browser's request were seen recently; a few are new (a trace ID, another path). Each line is parsed,
stripped and prepared for the upstream when it is first seen, by the same functions that the ASGI path uses. Assembling
a request of eight lines then takes 1.4 us instead of 6.3 us (on the machine of `docs/performance.md`), and uvicorn's
own work for it is avoided.

Only unambiguous requests are accepted: a supported method, a path of unreserved and reserved characters, HTTP/1.1; then
header lines with a token, a colon, one space, and visible ASCII that neither begins nor ends with a space; no body, no
upgrade, nothing that closes the connection. Everything else is left to uvicorn's parser (`fast_lane.uvicorn_protocol`).
`tests/fast_lane/test_request_cache.py` compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.types import Scope

from akoya_gateway.access.request import Headers, has_method_override
from akoya_gateway.admission.request_headers import Authorities, authorities
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.errors import GatewayError
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.signing.header_names import REQUEST_ID, SIGNATURE, SIGNATURE_INPUT, strip
from akoya_gateway.upstream.http.forwarded_headers import ForwardedValues
from akoya_gateway.upstream.http.request_head import IDEMPOTENT, HeaderRule, RequestWriter
from akoya_gateway.upstream.reverse_proxy import ReverseProxy

MAX_ENTRIES = 4096
"""Maximum number of cached lines of each kind."""
MAX_KEY_BYTES = 1024
"""Maximum size of a cached line."""
MAX_SECTIONS, MAX_SECTION_BYTES = 1024, 4096
"""Maximum number and size of cached header sections. A browser often repeats all of its headers."""
MAX_HEAD_BYTES = 16_384
"""Maximum size of a request head that is parsed here."""
MAX_HEADERS = 100
"""Maximum number of header lines in a request. Not more than the smallest `limits.header_fields` the schema allows."""

_SIGNATURES = frozenset({SIGNATURE, SIGNATURE_INPUT})
"""Headers that the general path handles, because `strip` decides about both at once."""

_END = b"\r\n\r\n"
_Written = TypeVar("_Written", bytes, tuple[bytes, bytes])
"""A header as received: its line, or ASGI's pair."""

_METHODS = {verb: verb.decode() for verb in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")}
_VERBS = {method: verb for verb, method in _METHODS.items()}
_REQUEST_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)"
    rb"(?:\?([A-Za-z0-9._~!$&'()*+,;=:@%/?-]+))? HTTP/1\.1"
)
"""A method, a path and perhaps a query, which consist of unreserved and reserved characters (RFC 3986 section 2)."""
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): (" + _VALUE.pattern + rb")")


class CachedTarget:
    """A parsed request line.

    `start` is the request line for the upstream, `pool` has the connections to it and `proxy` is its reverse proxy.
    """

    __slots__ = ("closing", "head_only", "pool", "proxy", "query", "start", "target")

    def __init__(self, target: RequestTarget, query: bytes, proxy: ReverseProxy, start: bytes) -> None:
        verb = target.verb
        self.target = target
        self.query = query
        self.proxy = proxy
        self.pool = proxy.pool
        self.start = start
        self.closing = proxy.writer.closing(verb)
        self.head_only = verb == b"HEAD"

    @property
    def idempotent(self) -> bool:
        """True if the method is idempotent."""
        return self.target.verb in IDEMPOTENT


_UNREAD = CachedTarget.__new__(CachedTarget)
"""Marks a target that is not in the cache. None means that the target is cached and the lane cannot handle it."""


@dataclass(slots=True, eq=False)
class CachedHeaders:
    """A parsed header section, as sent by one peer.

    `sent` are ASGI's pairs, or plain lines that are split when they are needed. The gateway headers for the upstream go
    between `before` and `after`. `request_id` is the value of the first
    `X-Request-Id`, or None; it is not validated. Instances are shared between requests: do not modify them.
    """

    sent: Sequence[bytes | tuple[bytes, bytes]]
    peer: str | None
    session: str | None
    authorities: Authorities
    before: bytes
    after: bytes
    request_id: bytes | None

    @property
    def headers(self) -> Headers:
        """The headers as ASGI's pairs."""
        return [_pair(one) if isinstance(one, bytes) else one for one in self.sent]


def _pair(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name.lower(), value


_PASS, _HOST = int(HeaderRule.PASS), int(HeaderRule.HOST)
_FORWARDED, _UNTRUSTED = int(HeaderRule.FORWARDED), int(HeaderRule.UNTRUSTED)
_COOKIE, _REQUEST_ID, _ODD_KIND = range(len(HeaderRule), len(HeaderRule) + 3)
"""Kinds of headers that only this module distinguishes, in addition to those of `HeaderRule`."""


@dataclass(slots=True, eq=False)
class _CachedHeader:
    """A parsed header line. `wire` is the line for the upstream, empty if it is not passed on.

    Only a `Cookie` has a `session`, and only a `Host` has `authorities`.
    """

    kind: int
    wire: bytes = b""
    name: bytes = b""
    value: bytes = b""
    session: str | None = None
    authorities: Authorities = (b"", b"")


class _Form(Generic[_Written]):
    """The caches of headers in one form: their lines, or ASGI's pairs.

    `headers` has parsed headers and `sections` whole sections. `read` parses a header and stores it.
    """

    __slots__ = ("headers", "read", "sections")

    def __init__(self, read: Callable[[_Written], _CachedHeader]) -> None:
        self.read: Callable[[_Written], _CachedHeader] = read
        self.headers: BoundedCache[_Written, _CachedHeader] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True)
        self.sections: BoundedCache[tuple[object, ...], CachedHeaders] = BoundedCache(
            MAX_SECTIONS, MAX_SECTION_BYTES, on_repeat=True
        )


class RequestParser:
    """Caching parser for simple requests. Valid for one configuration."""

    def __init__(
        self,
        line: Callable[[str, bytes, bytes, bytes], CachedTarget | None],
        writer: RequestWriter,
        cookies: GatewayCookies,
        limit: int,
    ) -> None:
        """Initialize the parser.

        Args:
            line: Builds the target of a method, path, query and request line, or returns None if the lane cannot
                handle it.
            writer: Writes the request heads for the upstream.
            cookies: Finds and removes the gateway's cookies.
            limit: Maximum size of a request head.
        """
        self._build_target = line
        self._writer = writer
        self._cookies = cookies
        self._max_head_bytes = min(limit, MAX_HEAD_BYTES)
        self._target_cache: BoundedCache[bytes, CachedTarget | None] = BoundedCache(
            MAX_ENTRIES, MAX_KEY_BYTES, on_repeat=True
        )
        self._lines: _Form[bytes] = _Form(self._read_line)
        self._pairs: _Form[tuple[bytes, bytes]] = _Form(self._read_pair)
        self._simple_names: BoundedCache[bytes, bytes] = BoundedCache(MAX_ENTRIES, MAX_KEY_BYTES)
        """The start of the line by name, as received, for headers that are passed on regardless of their value."""

    def read(self, data: bytes, peer: str | None) -> tuple[CachedTarget, CachedHeaders] | None:
        """Parse `data` if it is exactly one simple request. Returns None if uvicorn's parser must handle it.

        The scheme is http, because the sidecar's own client connections have no TLS.
        """
        if data[-4:] != _END or len(data) > self._max_head_bytes:
            return None
        start, _, section = data.partition(b"\r\n")
        target = self._target_cache.get(start, _UNREAD)
        if target is _UNREAD:
            target = self._read_target(start)
        if target is None:
            return None
        key = peer, section
        headers = self._lines.sections.get(key)
        if headers is None:
            lines = section[:-4].split(b"\r\n", MAX_HEADERS)
            headers = self._read_headers(self._lines, key, lines, peer, "http")
            if headers is None:
                return None
        return target, headers

    def read_scope(self, scope: Scope, peer: str | None) -> tuple[CachedTarget, CachedHeaders] | None:
        """Parse an HTTP/1.1 request from an ASGI `http` scope, or return None."""
        raw_path, query = scope.get("raw_path", b""), scope["query_string"]
        if b"?" in raw_path:
            return None
        url = raw_path + b"?" + query if query else raw_path
        found = self.read_parsed(scope["method"], url, scope["headers"], peer, scope.get("scheme", "http"))
        return None if found is None or found[0].target.path != scope["path"] else found

    def read_parsed(
        self, method: str, url: bytes, headers: Headers, peer: str | None, scheme: str
    ) -> tuple[CachedTarget, CachedHeaders] | None:
        """Parse an HTTP/1.1 request whose parts a server has parsed, or return None."""
        verb = _VERBS.get(method)
        if verb is None:
            return None
        written = b" ".join((verb, url, b"HTTP/1.1"))
        cached_target = self._target_cache.get(written, _UNREAD)
        if cached_target is _UNREAD:
            cached_target = self._read_target(written)
        if cached_target is None or len(headers) > MAX_HEADERS:
            return None
        # A tuple, because a server may add to its list later (uvicorn adds trailers).
        pairs = tuple(headers)
        key = peer, scheme, pairs
        cached_headers = self._pairs.sections.get(key)
        if cached_headers is None:
            cached_headers = self._read_headers(self._pairs, key, pairs, peer, scheme)
            if cached_headers is None:
                return None
        return cached_target, cached_headers

    def _read_headers(
        self,
        form: _Form[_Written],
        key: tuple[object, ...],
        headers: Sequence[_Written],
        peer: str | None,
        scheme: str,
    ) -> CachedHeaders | None:
        get_cached = form.headers.get
        host = cookie = request_id = None
        is_new = False
        wires: list[bytes] = []
        forwarding_fields: list[_CachedHeader] = []
        for each in headers:
            field = get_cached(each)
            if field is None:
                field, is_new = form.read(each), True
            kind = field.kind
            if kind == _PASS:
                wires.append(field.wire)
            elif kind == _COOKIE and cookie is None:
                cookie = field
                wires.append(field.wire)
            elif kind == _HOST and host is None:
                host = field
                wires.insert(0, field.wire)
            elif kind in (_FORWARDED, _UNTRUSTED):
                if self._writer.forwarded.trusts(peer):
                    forwarding_fields.append(field)
                    wires.append(field.wire if kind == _UNTRUSTED else b"")
                else:
                    self._writer.client_headers.log_dropped(field.name)
            elif kind == _REQUEST_ID:
                request_id = request_id or field.value
            else:
                return None
        if host is None:
            return None
        values = _forwarded_values(forwarding_fields) if forwarding_fields else None
        after = self._writer.forwarded.lines(peer, scheme, host.value, values)
        session = None if cookie is None else cookie.session
        found = CachedHeaders(headers, peer, session, host.authorities, b"".join(wires), after, request_id)
        # A section with a header that was not in the cache has not been received before.
        return found if is_new else form.sections.store(key, found, sum(map(_size, headers)))

    def _read_target(self, written: bytes) -> CachedTarget | None:
        found = _REQUEST_LINE.fullmatch(written)
        target = None
        if found is not None:
            verb, raw_path, query = found.groups(b"")
            try:
                target = self._build_target(_METHODS[verb], raw_path, query, written + b"\r\n")
            except GatewayError:
                target = None
        if target is not None and target.target.is_new:
            return target
        return self._target_cache.store(written, target, len(written))

    def _read_pair(self, pair: tuple[bytes, bytes]) -> _CachedHeader:
        # ASGI header names are lower-case, and a colon in one would end the name in a header line. Whether the upstream
        # may send trailers depends on the server in front. The general path handles all of these.
        name, value = pair
        odd = name == b"te" or b":" in name or name != name.lower()
        field = _ODD if odd else self._simple(name, value) or self._parse_header(b"%b: %b" % pair)
        return self._pairs.headers.store(pair, field, len(name) + len(value))

    def _read_line(self, written: bytes) -> _CachedHeader:
        name, _, value = written.partition(b": ")
        field = self._simple(name, value) or self._parse_header(written)
        return self._lines.headers.store(written, field, len(written))

    def _simple(self, name: bytes, value: bytes) -> _CachedHeader | None:
        """Return the parsed header if headers with this name are passed on regardless of their value, or None."""
        start = self._simple_names.get(name)
        if start is None or not _VALUE.fullmatch(value):
            return None
        return _CachedHeader(_PASS, start + value + b"\r\n")

    def _parse_header(self, written: bytes) -> _CachedHeader:
        found = _FIELD.fullmatch(written)
        if found is None or found[1].lower() == b"proxy-connection":
            # uvicorn's parser treats `Proxy-Connection` as `Connection`.
            return _ODD
        header = found[1].lower(), found[2]
        try:
            does = self._writer.header_rule(header[0])
            if does is HeaderRule.HOST:
                return self._host(header)
        except GatewayError:
            return _ODD
        if header[0] in _SIGNATURES or has_method_override([header]):
            return _ODD
        cached = strip([header], self._cookies.without_gateway_cookies)
        wire = b"%b: %b\r\n" % cached[0] if cached else b""
        if does is HeaderRule.PASS:
            return self._passed(found[1], header, wire)
        if does is HeaderRule.DROP:
            self._writer.client_headers.log_dropped(header[0])
        if does in (HeaderRule.DROP, HeaderRule.TE) or (
            does is HeaderRule.CONNECTION and header[1].lower() == b"keep-alive"
        ):
            return _CachedHeader(_PASS)
        if does in (HeaderRule.FORWARDED, HeaderRule.UNTRUSTED):
            return _CachedHeader(int(does), wire, *header)
        return _ODD

    def _passed(self, written_name: bytes, header: tuple[bytes, bytes], wire: bytes) -> _CachedHeader:
        name = header[0]
        if name == b"cookie":
            return _CachedHeader(_COOKIE, wire, session=self._cookies.session([header]))
        if name == REQUEST_ID:
            return _CachedHeader(_REQUEST_ID, b"", *header)
        if wire:
            self._simple_names.store(written_name, name + b": ", len(name))
        return _CachedHeader(_PASS, wire)

    def _host(self, header: tuple[bytes, bytes]) -> _CachedHeader:
        """Parse a `Host` header. Raises `RefusedRequest`."""
        value = self._writer.host([header[1]])
        host = _CachedHeader(_HOST, b"host: %b\r\n" % value, header[0], value, authorities=authorities([header]))
        return host if all(host.authorities) else _ODD


_ODD = _CachedHeader(_ODD_KIND)


def _size(written: bytes | tuple[bytes, bytes]) -> int:
    return len(written) if isinstance(written, bytes) else len(written[0]) + len(written[1])


def _forwarded_values(fields: list[_CachedHeader]) -> ForwardedValues | None:
    values: ForwardedValues = {}
    for field in fields:
        if field.kind == _FORWARDED:
            values.setdefault(field.name, []).append(field.value)
    return values or None
