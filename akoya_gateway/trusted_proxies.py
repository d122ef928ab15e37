"""Parses peer addresses and decides whether a peer is one of `trusted_proxies`.

Every part of the gateway that relies on a proxy's headers uses this module: forwarded headers, the identity header,
forward-auth, request IDs and the rate limit for authorization attempts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from akoya_gateway.bounded_cache import BoundedCache

Address = IPv4Address | IPv6Address
TrustedPeer = IPv4Network | IPv6Network | Literal["unix"]
"""One entry of `trusted_proxies`. `unix` means peers on a Unix socket."""

Networks = Sequence[TrustedPeer]

UNIX: Literal["unix"] = "unix"
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
MAX_ENTRIES = 1024
"""Number of addresses whose result is cached."""

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%A-Za-z0-9_-]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}")


def parse_address(text: str) -> Address | None:
    """Parse `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1` or `[2001:db8::1]:80`. Return None for anything else.

    An IPv4-mapped IPv6 address is returned as the IPv4 address. A zone (RFC 4007 section 11) is ignored.
    """
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(((found[1] or found[2]) if found else text).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class TrustedProxies:
    """Callable that decides whether a peer is trusted: `trusted("10.1.2.3")`. Results are cached by address."""

    __slots__ = ("_cache", "_networks", "_peers", "_unix")

    def __init__(self, peers: Sequence[TrustedPeer] = ()) -> None:
        self._peers = tuple(peers)
        self._networks = tuple([peer for peer in self._peers if not isinstance(peer, str)])
        self._unix = UNIX in self._peers or any(self.covers(address) for address in _LOOPBACK)
        self._cache: BoundedCache[str, bool] = BoundedCache(MAX_ENTRIES)

    def __bool__(self) -> bool:
        """Return True if there is at least one trusted proxy."""
        return bool(self._peers)

    def __call__(self, peer: str | None, *, is_forwarded: bool = False) -> bool:
        """Return True if the peer is trusted.

        Args:
            peer: the peer's address, or None for a peer on a Unix socket. Such a peer is a process on this machine,
                like one on a loopback address, so it is trusted if `unix` or a loopback address is listed.
            is_forwarded: True if the server took the address from a header. It is then not the address of the actual
                peer, and is never trusted.
        """
        if is_forwarded or not self._peers:
            return False
        if peer is None:
            return self._unix
        cached = self._cache.get(peer)
        if cached is None:
            address = parse_address(peer)
            cached = self._cache.store(peer, address is not None and self.covers(address))
        return cached

    def covers(self, address: Address) -> bool:
        """Return True if the address is in one of the networks."""
        return any(address in network for network in self._networks)


def peer_of(client: Sequence[str | int | None] | None) -> tuple[str | None, bool]:
    """Return the peer address from an ASGI scope's `client`, and True if the server took it from a header.

    Port 0 marks such an address: uvicorn, hypercorn and granian set it for an address that they took from
    `X-Forwarded-For`, and no real peer has it.
    """
    if not client:
        return None, False
    address = client[0]
    return (str(address) if address else None), client[1] == 0
