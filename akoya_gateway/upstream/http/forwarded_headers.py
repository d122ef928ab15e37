"""Writes X-Forwarded-*, Forwarded (RFC 7239) and Via (RFC 9110 section 7.6.3) for the upstream.

Values sent by a client are dropped. Values sent by a trusted proxy are kept and extended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.config.model import Origin
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies, parse_address

VIA = b"1.1 akoya-gateway"
VIA_HEADER = (b"via", VIA)

FORWARDED_NAMES = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
    }
)
"""The forwarded headers that the gateway sets. Via is not among them."""

_MAX_ENTRIES, _MAX_HOST_BYTES = 1024, 256
_ADDRESS = re.compile(rb"[A-Za-z0-9.:_%\-\[\]]{1,64}")
_TRUSTED_HOST = re.compile(rb"[A-Za-z0-9._~\-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")

ForwardedValues = dict[bytes, list[bytes]]


class ForwardedHeaders:
    """Writes the header lines. They are cached for peers that send no trusted forwarded headers."""

    __slots__ = ("_cache", "_public_hosts", "trusts")

    def __init__(self, trusted_proxies: Sequence[TrustedPeer] = (), public_url: Origin | None = None) -> None:
        """Create the writer.

        Args:
            trusted_proxies: Peers whose forwarded headers are trusted.
            public_url: If its scheme is https, requests for its host are reported as https, even if a proxy terminates
                TLS in front of the gateway.
        """
        self.trusts = TrustedProxies(trusted_proxies)
        self._public_hosts: frozenset[bytes] = frozenset()
        if public_url is not None and public_url.scheme == "https":
            host = public_url.authority.encode("ascii")
            self._public_hosts = frozenset({host, host + b":443"} if public_url.port == 443 else {host})
        self._cache: BoundedCache[tuple[str | None, str, bytes], bytes] = BoundedCache(_MAX_ENTRIES, _MAX_HOST_BYTES)

    def lines(self, peer: str | None, scheme: str, host: bytes, values: ForwardedValues | None = None) -> bytes:
        """Return the header lines, which each end in CRLF.

        Args:
            peer: The address of the peer, or None if the request arrived over a unix socket.
            scheme: The scheme of the request.
            host: The Host of the request.
            values: The headers of `FORWARDED_NAMES` that a trusted peer has sent.
        """
        hop = (peer, scheme, host)
        if not values:
            cached = self._cache.get(hop)
            if cached is not None:
                return cached
        if self._public_hosts and host.lower() in self._public_hosts:
            # Browsers reach the host of an https `public_url` over https.
            scheme = "https"
        lines = _write(_for(peer, values or {}), *_origin(scheme, host, values or {}), peer=peer)
        return lines if values else self._cache.store(hop, lines, len(host))


def _for(peer: str | None, values: ForwardedValues) -> list[bytes]:
    """Return the chain of addresses: the ones that the trusted proxy reported, followed by its own."""
    reported = [entry.strip(b" \t") for value in values.get(b"x-forwarded-for", ()) for entry in value.split(b",")]
    chain = [entry if _ADDRESS.fullmatch(entry) else b"unknown" for entry in reported if entry]
    return chain if peer is None else [*chain, _peer(peer)]


def _peer(peer: str) -> bytes:
    """Return the peer's address, or `unknown` if the server took an invalid one from somewhere other than a socket.

    An IPv4 client of a listener on `[::]` is named by its IPv4 address, as in `Forwarded` and by other proxies.
    """
    address = (peer.removeprefix("::ffff:") if "." in peer else peer).encode("ascii", "replace")
    return address if _ADDRESS.fullmatch(address) else b"unknown"


def _origin(own_scheme: str, own_host: bytes, values: ForwardedValues) -> tuple[bytes, bytes, bytes]:
    """Return scheme, host and port as the browser used them.

    The values of the trusted proxy are used where they are valid, and the request's own otherwise.
    """
    proto = _single(values, b"x-forwarded-proto").lower()
    scheme = proto if proto in (b"http", b"https") else own_scheme.encode("ascii")
    reported_host = _single(values, b"x-forwarded-host")
    host = reported_host if _TRUSTED_HOST.fullmatch(reported_host) else own_host
    reported_port = _single(values, b"x-forwarded-port")
    after = host.rpartition(b"]")[2]
    if reported_port.isdigit() and len(reported_port) <= 5:
        port = reported_port
    elif b":" in after:
        port = after.rpartition(b":")[2]
    else:
        port = b"443" if scheme == b"https" else b"80"
    return scheme, host, port


def _single(forwarded_values: ForwardedValues, name: bytes) -> bytes:
    values = forwarded_values.get(name, ())
    return values[0].strip() if len(values) == 1 else b""


def _node(address: bytes) -> bytes:
    """Return the address as an RFC 7239 section 6 node.

    An IPv6 address is bracketed and quoted. A port is omitted. An invalid address becomes `unknown`.
    """
    found = parse_address(address.decode("ascii"))
    if found is None:
        return b"unknown"
    text = str(found).encode("ascii")
    return text if found.version == 4 else b'"[' + text + b']"'


def _write(chain: list[bytes], scheme: bytes, host: bytes, port: bytes, *, peer: str | None) -> bytes:
    # Forwarded is always derived from the X-Forwarded-For chain, because a proxy that supports only X-Forwarded-For
    # passes on a Forwarded header that the client has forged.
    elements = [b"for=" + _node(address) for address in chain]
    if peer is None:
        elements.append(b"for=unknown")
    own = b"%b;host=%b;proto=%b" % (elements[-1], b'"' + host + b'"', scheme)
    lines = [
        b"x-forwarded-for: " + b", ".join(chain) if chain else b"",
        b"x-forwarded-proto: " + scheme,
        b"x-forwarded-host: " + host,
        b"x-forwarded-port: " + port,
        b"forwarded: " + b", ".join([*elements[:-1], own]),
        b"via: " + VIA,
    ]
    return b"".join([line + b"\r\n" for line in lines if line])
