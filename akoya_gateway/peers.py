"""Who a connection comes from: whether an address is one of `trusted_proxies`, judged once for each address."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

Networks = Sequence[IPv4Network | IPv6Network]

MANY = 1024
"""Addresses whose judgement is kept; after so many it is begun anew."""


class TrustedProxies:
    """`trusted("10.1.2.3")`. An IPv4 address in IPv6 clothes is the IPv4 address; a zone (RFC 4007 section 11) does
    not count; what is no address is not trusted."""

    __slots__ = ("_judged", "_networks")

    def __init__(self, networks: Networks = ()) -> None:
        self._networks = tuple(networks)
        self._judged: dict[str, bool] = {}

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return bool(self._networks)

    def __call__(self, address: str) -> bool:
        known = self._judged.get(address)
        if known is None:
            known = self._judge(address)
            if len(self._judged) >= MANY:
                self._judged.clear()
            self._judged[address] = known
        return known

    def _judge(self, text: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
