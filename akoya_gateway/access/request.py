"""The parts of a request that the access decision needs, in the same form for every entry point."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

Headers = list[tuple[bytes, bytes]]
"""Pairs of name and value; names are in lower case, as in ASGI."""
LoggedFields = tuple[bytes, str, bytes]
"""The fields of a request in the access log: the path as received, the method, and the request ID."""

_HOST_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789.-:[]_"


@dataclass(slots=True)
class RequestInfo:
    """A request. Must not be modified.

    The class is not frozen because every request creates an instance, and creating a frozen one takes three times as
    long. `raw_path` and `query` are byte for byte as received. `peer` is the address of the TCP peer, or None on a unix
    socket. For forward-auth, all fields describe the original request as reported by a trusted proxy.
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: Headers = field(repr=False)
    peer: str | None
    request_id: str
    websocket: bool = False
    content_digest: bytes | None = None
    """Value of the body's Content-Digest (RFC 9530), or None if the body was not available when it was computed."""
    peer_is_forwarded: bool = False
    """Whether the server took `peer` from a header. It is then not the real TCP peer and must not be trusted."""

    def logged_fields(self) -> LoggedFields:
        """Return the fields of the access log."""
        return self.raw_path, self.method, self.request_id.encode()

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of the header with this lower-case name, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def accept_language(self) -> bytes:
        """The header `Accept-Language`: several are joined as RFC 9110 section 5.3 requires. Empty if there is none."""
        return b",".join(value for key, value in self.headers if key == b"accept-language")


def host_of(headers: Headers) -> bytes:
    """Return the `Host` header in lower case, as the upstream will see it (RFC 9110 section 7.2).

    Empty if there is not exactly one such header, or if it contains characters that no host or port contains.
    """
    found = [value for key, value in headers if key == b"host"]
    host = found[0].lower() if len(found) == 1 else b""
    return b"" if len(host) > 255 or host.translate(None, _HOST_CHARACTERS) else host


def normalizes_to(name: bytes, header: bytes) -> bool:
    """Return True if a server that turns headers into variables may confuse `name` with `header`.

    Both are in lower case. Such servers may replace every special character of a name the way they replace `-`
    (CVE-2025-64484).
    """
    return len(name) == len(header) and all(
        a == b or (b == 0x2D and not chr(a).isalnum()) for a, b in zip(name, header, strict=True)
    )


# PHP treats `.` and `[` in a parameter name as `_` and truncates the name at NUL. Catalyst reads `x-tunneled-method`.
_QUERY_OVERRIDE = re.compile(
    rb"(?:[_.\[](?:http[-_.]?)?method|(?:x[-_.])?(?:http[-_.])?method[-_.]override|x[-_.](?:http|tunneled)[-_.]method)(?:[\[\0].*)?",
    re.DOTALL,
)
_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")


def has_method_override(headers: Headers) -> bool:
    """Return True if a header may make the app treat the request as one with another method.

    Such a request must be rejected where the rules depend on the method.
    """
    return any(
        name[:1] == b"x" and any(normalizes_to(name, override) for override in _OVERRIDES) for name, _ in headers
    )


def names_a_method_in(query: bytes) -> bool:
    """Return True if some framework would treat a query parameter as a method override.

    That is `_method`, or a header's name such as `X-HTTP-Method-Override`, in every spelling that PHP and others accept
    for it. Overrides in the body are not detected.
    """
    if b"=" not in query or (b"ethod" not in query.lower() and b"%" not in query):
        return False
    names = (pair.partition(b"=")[0] for pair in query.replace(b";", b"&").split(b"&"))
    return any(_QUERY_OVERRIDE.fullmatch(unquote_to_bytes(name.replace(b"+", b" ")).lower().strip()) for name in names)


def is_navigation(request: RequestInfo) -> bool:
    """Return True if a browser is navigating to a page, so that it can follow a redirect to a login.

    All other requests should get a 401. Fetch Metadata decides if the browser sends it, otherwise `Accept`.
    """
    if request.websocket or request.method not in ("GET", "HEAD") or is_speculative(request):
        return False
    mode = request.header(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate" and request.header(b"sec-fetch-dest") in (b"document", None)
    return wants_page(request) and request.header(b"x-requested-with") is None


def is_speculative(request: RequestInfo) -> bool:
    """Return True if a browser is prefetching or prerendering the page.

    Such a request must not start a login, because the user has not navigated yet. The header is `Sec-Purpose` (Fetch),
    or `Purpose` and `X-Moz` in older browsers.
    """
    return any(
        name in (b"sec-purpose", b"purpose", b"x-moz") and value.lower().startswith((b"prefetch", b"preview"))
        for name, value in request.headers
    )


def wants_page(request: RequestInfo) -> bool:
    """Return True if the response should be HTML rather than JSON."""
    return b"text/html" in (request.header(b"accept") or b"")
