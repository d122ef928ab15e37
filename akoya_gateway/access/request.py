"""A request, as far as the decision needs it: the same value whichever face it came in by."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

Headers = list[tuple[bytes, bytes]]
"""Lower-case names, as ASGI has them."""

_HOST_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789.-:[]_"


@dataclass(slots=True)
class RequestInfo:
    """Not to be changed; not frozen, for a frozen one takes three times as long to make, and every request makes one.

    `raw_path` and `query` byte for byte as received; `peer` is the address of the TCP peer, None on a unix socket.

    For forward-auth all of it describes the original request, as told by a trusted proxy.
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: Headers = field(repr=False)
    peer: str | None
    request_id: str
    websocket: bool = False
    content_digest: bytes | None = None
    """Value of the body's Content-Digest (RFC 9530), where the body was at hand to be digested."""
    peer_is_forwarded: bool = False
    """`peer` is not where the packets come from: the server took it from a header, so it is nobody's word."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def host_of(headers: Headers) -> bytes:
    """`Host`, lower case, as the upstream will see it (RFC 9110 section 7.2); empty when there is not exactly one, or
    when it holds anything a host and port do not."""
    found = [value for key, value in headers if key == b"host"]
    host = found[0].lower() if len(found) == 1 else b""
    return b"" if len(host) > 255 or host.translate(None, _HOST_CHARACTERS) else host


def normalizes_to(name: bytes, header: bytes) -> bool:
    """Whether a server that makes variables of headers may take `name` for `header`, both in lower case: `-` is what
    every other sign of a token can become (CVE-2025-64484)."""
    return len(name) == len(header) and all(
        a == b or (b == 0x2D and not chr(a).isalnum()) for a, b in zip(name, header, strict=True)
    )


# PHP reads `.` and `[` in the name of a parameter as `_`, and ends the name at NUL.
_QUERY_OVERRIDE = re.compile(rb"[_.\[]method(?:[\[\0].*)?", re.DOTALL)
_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")


def has_method_override(headers: Headers) -> bool:
    """Whether the app may take the request for one of another method: it must not, where the rules go by it."""
    return any(
        name[:1] == b"x" and any(normalizes_to(name, override) for override in _OVERRIDES) for name, _ in headers
    )


def names_a_method_in(query: bytes) -> bool:
    """Whether a parameter of the query is a method override to some framework: `_method`, in every spelling that PHP
    and others read as that. A body may hold one too, which nobody here sees."""
    if b"=" not in query or (b"ethod" not in query.lower() and b"%" not in query):
        return False
    names = (pair.partition(b"=")[0] for pair in query.replace(b";", b"&").split(b"&"))
    return any(_QUERY_OVERRIDE.fullmatch(unquote_to_bytes(name.replace(b"+", b" ")).lower().strip()) for name in names)


def is_navigation(request: RequestInfo) -> bool:
    """A person's browser going to a page: it can follow a redirect to a login. Anything else wants a 401.

    Fetch Metadata decides where the browser sends it; without it `Accept` does.
    """
    if request.websocket or request.method not in ("GET", "HEAD") or is_speculative(request):
        return False
    mode = request.header(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate" and request.header(b"sec-fetch-dest") in (b"document", None)
    return wants_page(request) and request.header(b"x-requested-with") is None


def is_speculative(request: RequestInfo) -> bool:
    """A browser loading a page in case it is wanted: nobody has asked to go to their bank yet.

    `Sec-Purpose` (Fetch), before it `Purpose` and `X-Moz`.
    """
    return any(
        name in (b"sec-purpose", b"purpose", b"x-moz") and value.lower().startswith((b"prefetch", b"preview"))
        for name, value in request.headers
    )


def wants_page(request: RequestInfo) -> bool:
    """Whether the answer should be HTML rather than JSON."""
    return b"text/html" in (request.header(b"accept") or b"")
