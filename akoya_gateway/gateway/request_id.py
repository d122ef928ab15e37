"""Request IDs, for logs, problem responses and the upstream."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

SCOPE_KEY = "akoya.request_id"
"""Key of an ASGI scope for the ID of its request, in bytes."""
_ID_START = len(REQUEST_ID) + 2
_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# The multipliers hide how many requests there were. They are odd, so that multiplication modulo a power of two never
# maps two counts to one ID.
_MAX_BLOCK, _BLOCK_MULTIPLIER = 0xF_FFFF, 0x9_E377
_LINE_ENDS = tuple([b"%03x\r\n" % (count * 0x9E5 & 0xFFF) for count in range(0x1000)])


class RequestIds:
    """Creates request IDs of 16 hex digits: 8 random ones per process, 5 for each block of 4,096 IDs, 3 in the block.

    The random part is drawn with the first ID, so processes forked before that (gunicorn with `preload_app`) do not
    share it. An incoming `X-Request-Id` is accepted only from a peer in `trusted`, and only if it consists of 1 to 64
    characters of `A-Z a-z 0-9 . _ -`.
    """

    def __init__(self, trusted: Sequence[TrustedPeer] = (), random: Callable[[int], bytes] = os.urandom) -> None:
        self._trusted = TrustedProxies(trusted)
        self.adopts = bool(self._trusted)
        """True if the ID of any peer is accepted."""
        self._random = random
        self._lines: Iterator[bytes] = iter(())
        self._prefix = b""
        self._block = _MAX_BLOCK

    def new(self) -> bytes:
        """Return a new ID."""
        return (next(self._lines, None) or self._begin_block())[_ID_START:-2]

    def new_line(self) -> bytes:
        """Return the header line of a new ID, for the upstream and for the client."""
        return next(self._lines, None) or self._begin_block()

    def for_request(self, peer: str | None, given: bytes | None) -> bytes:
        """Return the ID of a request of this peer (see `TrustedProxies`), by its `X-Request-Id` header or None."""
        return self.accept(given) if self._trusted(peer) else self.new()

    def accept(self, given: bytes | None) -> bytes:
        """Return the ID that a trusted proxy has sent, or a new one if it has sent none or an invalid one."""
        return given if given is not None and _VALID_ID.fullmatch(given) else self.new()

    def for_headers(self, peer: str | None, headers: Sequence[tuple[bytes, bytes]], *, is_forwarded: bool) -> bytes:
        """Return the ID of a request with these headers, as `for_request`. `is_forwarded`: see `TrustedProxies`."""
        if not self._trusted(peer, is_forwarded=is_forwarded):
            return self.new()
        return self.accept(next((value for name, value in headers if name == REQUEST_ID), None))

    def _begin_block(self) -> bytes:
        """Return the first line of the next block."""
        self._block += 1
        if self._block > _MAX_BLOCK:
            self._prefix = b"%b: %b" % (REQUEST_ID, self._random(4).hex().encode())
            self._block = 0
        start = b"%b%05x" % (self._prefix, self._block * _BLOCK_MULTIPLIER & _MAX_BLOCK)
        # Without Python code for each line, because every request has one.
        self._lines = map(start.__add__, _LINE_ENDS)
        return next(self._lines)


def line_of(request_id: bytes) -> bytes:
    """Return the header line of an ID."""
    return b"%b: %b\r\n" % (REQUEST_ID, request_id)


def value_in(line: bytes) -> bytes:
    """Return the ID in a header line."""
    return line[_ID_START:-2]
