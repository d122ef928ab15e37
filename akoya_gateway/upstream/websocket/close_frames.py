"""How a WebSocket ends: codes, and the close frame (RFC 6455 sections 5.5.1 and 7.4): no I/O."""

from __future__ import annotations

from websockets.frames import EXTERNAL_CLOSE_CODES, Close, Frame, Opcode

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS = 1000, 1001, 1002, 1005
INVALID_DATA, TOO_BIG, BAD_GATEWAY = 1007, 1009, 1014

_MAX_REASON = 123


def is_sendable_code(code: int) -> bool:
    """RFC 6455 section 7.4: not every code may be in a close frame."""
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code <= 4999


def truncate_reason(reason: str) -> str:
    """A close frame has room for 123 bytes (RFC 6455 section 5.5)."""
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")


def close_frame(code: int, reason: str = "", *, masked: bool) -> bytes:
    """`masked`: for an upstream (RFC 6455 section 5.1). A code that cannot be sent becomes 1001."""
    words = Close(code if is_sendable_code(code) else GOING_AWAY, truncate_reason(reason))
    return Frame(Opcode.CLOSE, words.serialize()).serialize(mask=masked)
