"""Request IDs, for logs, problem responses and the upstream."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

SCOPE_KEY = "akoya.request_id"
"""Key of an ASGI scope for the ID of its request."""
_ID_START = len(REQUEST_ID) + 2
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
        self.adopts = bool(self._trusted)
        """True if the ID of any peer is accepted."""
        self._random = random
        self._renew()

    def new(self) -> str:
        """Return a new ID."""
        return id_in(self.new_line())

    def new_line(self) -> bytes:
        """Return the header line of a new ID, for the upstream and for the client."""
        self._count += 1
        if self._count > _WIDTH:
            self._renew()
        return b"%b%08x\r\n" % (self._line, self._count * _MULTIPLIER & _WIDTH)

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

    def for_headers(self, peer: str | None, headers: Sequence[tuple[bytes, bytes]], *, is_forwarded: bool) -> str:
        """Return the ID of a request with these headers, as `for_request`."""
        if self.adopts and self.trusts(peer, is_forwarded=is_forwarded):
            for name, value in headers:
                if name == REQUEST_ID:
                    return self.for_request(peer, value)
        return self.new()

    def _renew(self) -> None:
        self._line = b"%b: %b" % (REQUEST_ID, self._random(4).hex().encode())
        self._count = 0


def line_of(request_id: str) -> bytes:
    """Return the header line of an ID."""
    return b"%b: %b\r\n" % (REQUEST_ID, request_id.encode())


def id_in(line: bytes) -> str:
    """Return the ID in a header line."""
    return line[_ID_START:-2].decode()
