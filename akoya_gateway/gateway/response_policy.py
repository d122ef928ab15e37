"""Decides what of an app's response reaches the client. Every entry point edits response heads with this module only.

Hidden are the gateway's header names, `Set-Cookie` with the name of a gateway cookie, and `X-Request-Id`, because the
gateway sends its own. What a proxy adds to every response (`Via`, `Date`) is left to `upstream.reverse_proxy`,
`gateway.date_header` and the fast lane.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from akoya_gateway.access.request import Headers
from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_headers import is_ours_to_app
from akoya_gateway.config.model import Cookie
from akoya_gateway.sessions.cookies import gateway_cookie_names
from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.upstream.http.response_head import is_event_stream

TOKEN_REJECTED = b"akoya-token-rejected"
"""Response header of the app: Akoya rejected the token (401, code 602), so the token is refreshed.

Its value is 1, or says which of several tokens: see `Admitted.rejected_grants`.
"""

_SUSPECT = frozenset(
    "".join(letters).encode()
    for start in ("ako", "set", "x-r")
    for letters in product(*((c, c.upper()) for c in start))
)
"""The first three characters of every header name that may be hidden. Other headers need no further check."""
MAX_NAMES, MAX_NAME_BYTES = 1024, 64
"""Maximum number and size of cached names."""


class ResponsePolicy:
    """Edits response heads under one configuration."""

    __slots__ = ("_cookies", "_plain")

    def __init__(self, cookie: Cookie) -> None:
        self._cookies = frozenset(gateway_cookie_names(cookie))
        self._plain: BoundedCache[bytes, None] = BoundedCache(MAX_NAMES, MAX_NAME_BYTES)
        """Names of headers that pass regardless of their value, and that have no meaning for the gateway."""

    def hides(self, name: bytes, value: bytes) -> bool:
        """Return True if this header must not reach the client.

        An app that echoes the headers it received must not send a token to the browser. An app that sets a cookie with
        the name of a gateway cookie, by mistake, must not fix or end a session.
        """
        if name[:3] not in _SUSPECT:
            return False
        if name.lower() == b"set-cookie":
            # Browsers send a cookie without a name as its value alone, so `=akoya=x` sets `akoya` too.
            return value.lstrip(b" \t=").partition(b";")[0].partition(b"=")[0].strip(b" \t") in self._cookies
        return is_ours_to_app(name) or name.lower() == REQUEST_ID

    def edit(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Headers, bool, bytes | None]:
        """Return the headers for the client, whether they begin an event stream, and `TOKEN_REJECTED` if it is there.

        Goes through the headers once, because this runs for every response. The list is a new one. ASGI allows any
        iterable, and some can be iterated only once.
        """
        found = [*headers]
        hidden: Headers = []
        stream = False
        plain = self._plain
        for name, value in found:
            if name in plain:
                continue
            if name == b"content-type":
                # The length saves the call for most values.
                stream |= len(value) > 16 and is_event_stream(value)
            elif name[:3] not in _SUSPECT:
                if name.lower() == b"content-type":
                    # ASGI names are in lower case, but Django's are not.
                    stream |= is_event_stream(value)
                else:
                    plain.store(name, None, len(name))
            elif self.hides(name, value):
                hidden.append((name, value))
        if not hidden:
            return found, stream, None
        return [(name, value) for name, value in found if (name, value) not in hidden], stream, rejected_token(hidden)


def rejected_token(hidden: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the value of `TOKEN_REJECTED` in the hidden headers of a response, or None."""
    values = [value for name, value in hidden if name.lower() == TOKEN_REJECTED]
    return b",".join(values) if values else None
