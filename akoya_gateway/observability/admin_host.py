"""Protects the admin listener from DNS rebinding: a web page whose host name is made to resolve to the listener.

The browser treats the page's requests as same-origin, so the page may read the responses. It cannot change the `Host`
header, which contains the page's host name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_PRIVATE = ("localhost", "local", "localdomain", "internal", "svc", "lan", "home.arpa")
"""Suffixes that do not exist in public DNS (RFC 6761, 6762, 8375, `internal` by ICANN, `svc` in Kubernetes)."""
_BROWSER_HEADERS = frozenset({b"accept-language", b"origin", b"referer", b"sec-fetch-site"})
"""Browsers send at least one of these headers with each request. A page cannot remove `Accept-Language`."""


def is_rebound(headers: Iterable[tuple[bytes, bytes]], local_address: str | None) -> bool:
    """Return True if the request may come from a web page whose name was rebound to this listener.

    IP addresses, names without a dot and private names are always accepted, because pods and services are addressed by
    them. Any other name is refused on loopback. On other addresses it is refused only if a browser sent the request,
    because monitoring may use the public name of the machine.
    """
    host = b""
    browser = False
    for name, value in headers:
        if name == b"host":
            host = value
        browser |= name in _BROWSER_HEADERS or (name == b"user-agent" and value.startswith(b"Mozilla/"))
    return not _is_private(host) and (browser or _is_loopback(local_address))


def _is_private(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return True
    name = name.partition(":")[0].rstrip(".")
    if "." not in name or any(name.endswith(f".{private}") for private in _PRIVATE):
        return True
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        # A unix socket. Browsers cannot connect to it.
        return False
