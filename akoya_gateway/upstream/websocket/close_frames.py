"""WebSocket close codes and close frames (RFC 6455 sections 5.5.1 and 7.4). Does no I/O."""

from __future__ import annotations

from websockets.frames import EXTERNAL_CLOSE_CODES, Close, Frame, Opcode

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS = 1000, 1001, 1002, 1005
INVALID_DATA, TOO_BIG, BAD_GATEWAY = 1007, 1009, 1014

_MAX_REASON = 123


def is_sendable_code(code: int) -> bool:
    """Return True if the code may be sent in a close frame (RFC 6455 section 7.4)."""
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code <= 4999


def truncate_reason(reason: str) -> str:
    """Truncate the reason to the 123 bytes that fit into a close frame (RFC 6455 section 5.5)."""
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")


def close_frame(code: int, reason: str = "", *, masked: bool) -> bytes:
    """Return a close frame. A code that must not be sent is replaced with 1001.

    `masked` must be True for frames to an upstream and False for frames to a client (RFC 6455 section 5.1).
    """
    close = Close(code if is_sendable_code(code) else GOING_AWAY, truncate_reason(reason))
    return Frame(Opcode.CLOSE, close.serialize()).serialize(mask=masked)
