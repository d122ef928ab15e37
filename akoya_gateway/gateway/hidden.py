"""Which headers of an app's response the client must not get: the gateway's own names, and its cookies."""

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
"""How the name of a header begins that may be hidden: all others need no look."""


def hides(cookie: Cookie) -> Hides:
    """Return a predicate for name and value of a header.

    An app that echoes what it received must not hand a token to the browser. An app that sets a cookie of the
    gateway's name, by a fault of its own, must not fix or end a session.
    """
    injected = frozenset(gateway_cookie_names(cookie))

    def hidden(name: bytes, value: bytes) -> bool:
        if name.lower() == b"set-cookie":
            # A cookie without a name is sent back as its value alone, so `=akoya=x` sets `akoya` too.
            return value.lstrip(b" \t=").partition(b";")[0].partition(b"=")[0].strip(b" \t") in injected
        return is_ours_to_app(name)

    return hidden
