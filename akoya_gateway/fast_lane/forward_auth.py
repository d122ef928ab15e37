"""Forward-auth in the fast lane: a question that was asked before, about a session whose admission stands.

The ASGI path answers it the first time; when the same bytes come again from the same proxy, what was read of them is
at hand (`CachedCheck`), and only the standing admission is looked at and the answer signed: 6 us instead of 34 us,
uvicorn's part included (on the machine of `docs/performance.md`). Anything but a yes is left to the ASGI path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.access.request import RequestInfo, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.authentication.principal import is_trusted_peer
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.forward_auth import ANSWER_HEADER
from akoya_gateway.gateway.original_request import OriginalRequest
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.header_values import lines

MAX_ENTRIES = 1024
MAX_KEY_BYTES = 4096

_OK = b"HTTP/1.1 200 OK\r\n"
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


class CachedCheck:
    """One question as it was read. `remaining_lines`: the lines of the answer that stand behind ours, but for the
    date."""

    __slots__ = ("authority", "match", "original_request", "public", "remaining_lines", "request", "session", "verb")

    def __init__(
        self,
        ask: Callable[[], RequestInfo],
        original: OriginalRequest,
        match: RuleMatch,
        session: str | None,
        authority: bytes,
        *,
        public: bool,
    ) -> None:
        """`ask` makes the proxy's own request anew, each with a name of its own."""
        self.request = ask
        self.original_request = original
        self.match = match
        self.session = session
        self.authority = authority
        self.public = public
        self.verb = original.method.encode()
        self.remaining_lines = lines(Response(200, tuple(original.response_headers([]))).all_headers())


class EncodedResponse:
    """A yes, in the bytes of an HTTP/1.1 response."""

    __slots__ = ("_check", "content", "rule")

    def __init__(self, known: CachedCheck, content: bytes) -> None:
        self._check = known
        self.rule = known.match.rule.label
        self.content = content

    @property
    def request(self) -> RequestInfo:
        """The request that was meant; for whoever logs it (`gateway.response_observer.HasRequest`)."""
        return self._check.original_request.request_info(self._check.request())


class ForwardAuthCache:
    """A bounded memory, first in, first out, good for one configuration."""

    def __init__(self, date_header: DateHeader) -> None:
        self._date_header = date_header
        self._entries: OrderedDict[tuple[str | None, bytes], CachedCheck] = OrderedDict()

    def store(self, runtime: Runtime, peer: str | None, data: bytes, ask: Callable[[], RequestInfo]) -> None:
        """`data` is one head and nothing else, and `ask` makes what it says."""
        try:
            cached = _read(runtime, ask) if len(data) <= MAX_KEY_BYTES else None
        except GatewayError:
            return
        if cached is not None:
            self._entries[peer, data] = cached
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def response(self, runtime: Runtime, data: bytes, peer: str | None, now: float) -> EncodedResponse | None:
        """None: not known, or not now. Raises `GatewayError` as `AccessGate.try_admit` does."""
        cached = self._entries.get((peer, data))
        if cached is None:
            return None
        injected = b""
        if not cached.public:
            decision = runtime.gate.decisions.get(cached.session, cached.match, now)
            if decision is None:
                return None
            original = cached.original_request
            injected = decision.prepared.lines(cached.verb, cached.authority, original.raw_path, original.query, now)
        return EncodedResponse(
            cached, b"%b%b%b%b: %b\r\n\r\n" % (_OK, injected, cached.remaining_lines, *self._date_header.header())
        )

    def clear(self) -> None:
        self._entries.clear()


def _read(runtime: Runtime, again: Callable[[], RequestInfo]) -> CachedCheck | None:
    """As `forward_auth` does, None for whatever is not plain. Raises `GatewayError`."""
    request = again()
    if not runtime.gate.decisions.enabled or not is_trusted_peer(runtime.trusted_proxies, request):
        return None
    if not _BODY_HEADERS.isdisjoint(name for name, _ in request.headers):
        return None
    if not request.raw_path.startswith(runtime.original_requests.route) or request.header(ANSWER_HEADER) is not None:
        return None
    original = runtime.original_requests.read(request)
    path = normalize_path(original.raw_path)
    match = None if runtime.router.matches(path) else runtime.gate.match(original.method, path)
    request_headers = runtime.injector.read(original.headers)
    if match is None or original.websocket or not original.plain or request_headers.override:
        return None
    if names_a_method_in(original.query) and runtime.gate.minds_method(path):
        return None
    authority = request_headers.authorities[runtime.injector.secure(match.rule)]
    if not authority:
        return None
    return CachedCheck(
        again, original, match, request_headers.session, authority, public=not runtime.gate.needs_owner(match)
    )


def is_one_head(data: bytes, verb: bytes, url: bytes, headers: int) -> bool:
    """`data` holds this request line, then so many lines that are each a header, then the empty line, and no more:
    nothing folded, nothing that ends in a bare LF."""
    line, _, section = data.partition(b"\r\n")
    breaks = headers + 1
    return (
        line == b"%b %b HTTP/1.1" % (verb, url)
        and section.endswith(b"\r\n\r\n")
        and section.count(b"\r\n") == section.count(b"\n") == breaks
    )
