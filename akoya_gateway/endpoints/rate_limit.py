"""Limits how often one client address may start an authorization attempt: a token bucket each, in bounded memory.

IPv6 addresses share a bucket per /64, because one customer usually has at least that whole network. All spellings of
an address map to one key (compare CVE-2026-47203).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from math import ceil

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.clock import Clock
from akoya_gateway.errors import UserError
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies, parse_address

MAX_KEYS = 20_000
"""Buckets kept, about 5 MB. The least recently used ones are evicted."""
MAX_CHAIN_BYTES = 4096
"""Bytes of X-Forwarded-For that are parsed, counted from its end."""


class TooManyRequests(UserError):
    """Raised if an address exceeds `limits.connects_per_minute`."""

    status = 429
    code = "too-many-connects"
    title = "Too many attempts"


class RateLimiter:
    """Allows `per_minute` attempts for each key, in a burst or spread. 0 means no limit."""

    def __init__(self, per_minute: int, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._capacity = float(per_minute)
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, key: str | None) -> None:
        """Count one attempt.

        Args:
            key: From `client_key`. None if the sender has no address (Unix socket), which is not limited.

        Raises:
            TooManyRequests: The limit is exceeded. `retry_after` is set.
        """
        if not self._capacity or key is None:
            return
        now = self._clock()
        left, then = self._buckets.pop(key, (self._capacity, now))
        rate = self._capacity / 60.0
        # If the clock was set back, the elapsed time counts as zero.
        left = min(left + max(now - then, 0.0) * rate, self._capacity)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        if not allowed:
            raise TooManyRequests(
                "Please wait a moment, then try again.", retry_after=max(ceil((1.0 - left) / rate), 1)
            )


def client_key(request: RequestInfo, trusted: Sequence[TrustedPeer]) -> str | None:
    """Return the rate limit key of the client's address.

    This is the address of the TCP peer. If the peer is one of `trusted_proxies`, it is the last address in
    `X-Forwarded-For` that is not a trusted proxy. An entry that is not an address ends the search.
    """
    proxies = TrustedProxies(trusted)
    address = None if request.peer is None else parse_address(request.peer)
    if proxies(request.peer, is_forwarded=request.peer_is_forwarded):
        for entry in _chain(request):
            reported = parse_address(entry)
            if reported is None:
                break
            address = reported
            if not proxies.covers(reported):
                break
    if address is None:
        return request.peer
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def _chain(request: RequestInfo) -> list[str]:
    """Return the entries of `X-Forwarded-For`, last first."""
    reported = b",".join(value for name, value in request.headers if name == b"x-forwarded-for")
    entries = reported[-MAX_CHAIN_BYTES:].decode("latin-1").split(",")
    return [entry.strip() for entry in reversed(entries) if entry.strip()]
