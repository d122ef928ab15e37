"""Closes a connection with a TCP reset, so that what was sent on it does not look complete."""

from __future__ import annotations

import asyncio
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""`struct linger`: on, for 0 seconds."""


def reset(transport: asyncio.Transport) -> None:
    """Close the connection at once, with a reset. Data that is not sent yet is discarded."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
