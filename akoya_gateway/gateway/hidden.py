"""Defines which response headers of an app are hidden from the client.

These are the gateway's header names, and `Set-Cookie` with the name of a gateway cookie.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from akoya_gateway.client_headers import is_ours_to_app
from akoya_gateway.config.model import Cookie
from akoya_gateway.sessions.cookies import gateway_cookie_names

Hides = Callable[[bytes, bytes], bool]

SUSPECT = frozenset(
    "".join(letters).encode() for start in ("ako", "set") for letters in product(*((c, c.upper()) for c in start))
)
"""The first three characters of every header name that may be hidden. Other headers need no further check."""


def hides(cookie: Cookie) -> Hides:
    """Return a predicate that is True for a header (name, value) that must be hidden.

    An app that echoes the headers it received must not send a token to the browser. An app that sets a cookie with the
    name of a gateway cookie, by mistake, must not fix or end a session.
    """
    injected = frozenset(gateway_cookie_names(cookie))

    def hidden(name: bytes, value: bytes) -> bool:
        if name.lower() == b"set-cookie":
            # Browsers send a cookie without a name as its value alone, so `=akoya=x` sets `akoya` too.
            return value.lstrip(b" \t=").partition(b";")[0].partition(b"=")[0].strip(b" \t") in injected
        return is_ours_to_app(name)

    return hidden
