"""Request IDs, for logs, problem responses and the upstream."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WIDTH = 0xFFFF_FFFF
# Hides how many requests there were. Odd, so that multiplication modulo 2^32 never maps two counts to one ID.
_MULTIPLIER = 0x9E37_79B1


class RequestIds:
    """Creates request IDs of 16 hex digits: 8 random ones per process, 8 from a counter.

    Create it after a fork, not before, so that processes do not share the random part. An incoming `X-Request-Id` is
    accepted only from a peer in `trusted`, and only if it consists of 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    """

    def __init__(self, trusted: Sequence[TrustedPeer] = (), random: Callable[[int], bytes] = os.urandom) -> None:
        self._trusted = TrustedProxies(trusted)
        self._random = random
        self._renew()

    def new(self) -> str:
        """Return a new ID."""
        self._count += 1
        if self._count > _WIDTH:
            self._renew()
        return f"{self._prefix}{self._count * _MULTIPLIER & _WIDTH:08x}"

    def trusts(self, peer: str | None, *, is_forwarded: bool = False) -> bool:
        """Return True if an `X-Request-Id` of this peer is accepted. The parameters are those of `for_request`."""
        return self._trusted(peer, is_forwarded=is_forwarded)

    def for_request(self, peer: str | None, given: bytes | None, *, is_forwarded: bool = False) -> str:
        """Return the ID of a request.

        Args:
            peer: see `TrustedProxies`.
            given: its `X-Request-Id` header, or None.
            is_forwarded: see `TrustedProxies`.
        """
        if given is not None and _VALID_ID.fullmatch(given) and self._trusted(peer, is_forwarded=is_forwarded):
            return given.decode("ascii")
        return self.new()

    def _renew(self) -> None:
        self._prefix = self._random(4).hex()
        self._count = 0
