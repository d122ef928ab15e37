"""Protects the admin listener from DNS rebinding: a web page whose name is made to lead to the listener's address.

The page's requests are same-origin for the browser, so it may read the responses. What it cannot change is the `Host`
header, which holds the page's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_PRIVATE = ("localhost", "local", "localdomain", "internal", "svc", "lan", "home.arpa")
"""Ends of names that no public DNS has (RFC 6761, 6762, 8375, `internal` by ICANN, `svc` in Kubernetes)."""
_OF_BROWSERS = frozenset({b"accept-language", b"origin", b"referer", b"sec-fetch-site"})
"""Browsers send at least one of them with each request, and a page cannot remove `Accept-Language`."""


def is_rebound(headers: Iterable[tuple[bytes, bytes]], local_address: str | None) -> bool:
    """Return True for a request that may come from a page with a name of its own.

    IP addresses, names without a dot and private names are always accepted: pods and services are asked by them. On
    loopback any other name is refused. On other addresses it is refused if a browser sent the request: monitoring may
    use the public name of the machine.
    """
    host = b""
    browser = False
    for name, value in headers:
        if name == b"host":
            host = value
        browser |= name in _OF_BROWSERS or (name == b"user-agent" and value.startswith(b"Mozilla/"))
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
        # A unix socket: no browser connects to one.
        return False
