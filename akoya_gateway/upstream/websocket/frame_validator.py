"""Finds frame boundaries in a WebSocket byte stream and validates the frames (RFC 6455 section 5). Does no I/O.

Frames do not have to be decoded and encoded again: frames of the client are masked, as the upstream requires, and
frames of the upstream are not. The bytes are therefore forwarded unchanged, and a `FrameValidator` for each direction
only parses the frame headers.

Theory of operation. The forwarded bytes always end in one of two places:

- Between two frames. The header of a data frame, and a control frame as a whole, are forwarded only when they are
  complete and valid. Until then they are buffered, which takes at most 131 bytes.
- Within the payload of a data frame, which is forwarded as it arrives. `remaining` is the number of bytes that are
  still missing.

The gateway can therefore insert its own close frame whenever `remaining` is 0, and a rejected header or control frame
has never been forwarded in part.
"""

from __future__ import annotations

from akoya_gateway.upstream.websocket.close_frames import INVALID_DATA, PROTOCOL_ERROR, TOO_BIG, is_sendable_code

_CONTINUATION, _CLOSE = 0, 8
_OPCODES = frozenset((0, 1, 2, 8, 9, 10))
_MAX_CONTROL_BYTES = 125
_WHOLE_MESSAGE = (0x81, 0x82)
"""First byte of a text or binary message in one frame."""


class FrameValidator:
    """Validates one direction of a WebSocket.

    When `is_closed` is True, nothing more is forwarded. In this case `close_code` is the code of the violated rule, or
    None if the peer has sent a valid close frame.
    """

    __slots__ = (
        "_fragmented",
        "_head",
        "_held",
        "_mask",
        "_max_fast_length",
        "_max_message",
        "_message",
        "_plain",
        "close_code",
        "is_closed",
        "remaining",
    )

    def __init__(self, *, masked: bool, max_message: int) -> None:
        """Create the validator.

        Args:
            masked: True for frames of a client (section 5.1).
            max_message: The largest message in bytes, over all its fragments.
        """
        self.is_closed = False
        self.close_code: int | None = None
        self.remaining = 0
        """Bytes of the current data frame's payload that have not arrived yet."""
        self._mask = 0x80 if masked else 0
        self._head = 6 if masked else 2
        """Length of the shortest header."""
        self._max_message = max_message
        self._max_fast_length = min(_MAX_CONTROL_BYTES, max_message)
        self._held = b""
        self._fragmented = False
        self._message = 0
        self._plain = True
        """True between two messages with nothing buffered, when the next byte starts a frame."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to forward now, taken from the buffered ones and `data`."""
        # Fast path for the most frequent case: exactly one small unfragmented message.
        if self._plain and len(data) > 1 and data[0] in _WHOLE_MESSAGE:
            length = data[1] ^ self._mask
            if length <= self._max_fast_length and len(data) == length + self._head:
                return data
        if self.is_closed:
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        passed = self._walk(data)
        self._plain = not (self.remaining or self._held or self._fragmented or self.is_closed)
        return data if passed == len(data) else data[:passed]

    def _walk(self, data: bytes) -> int:
        at, size = 0, len(data)
        while at < size and not self.is_closed:
            if self.remaining:
                step = min(self.remaining, size - at)
                self.remaining -= step
                at += step
                continue
            behind = self._read_header(data, at)
            if behind == at:
                if not self.is_closed:
                    self._held = data[at:]
                break
            at = behind
        return at

    def _read_header(self, data: bytes, at: int) -> int:
        """Validate the frame header at `at` and return the position after it.

        For a control frame the position is after the whole frame. Return `at` if the header or the control frame is
        incomplete or invalid.
        """
        if len(data) - at < 2:
            return at
        first, second = data[at], data[at + 1]
        if not self._allowed(first, second):
            return self._refuse(at, PROTOCOL_ERROR)
        if first & 0x08:
            return self._control(data, at, first & 0x0F, second & 0x7F)
        return self._data(data, at, first, second & 0x7F)

    def _allowed(self, first: int, second: int) -> bool:
        """Return True if the first two bytes of a frame are valid (sections 5.1, 5.2, 5.4 and 5.5).

        Reserved bits must be 0, because no extension is ever negotiated.
        """
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _OPCODES or second & 0x80 != self._mask:
            return False
        if opcode & 0x08:
            return bool(first & 0x80) and second & 0x7F <= _MAX_CONTROL_BYTES
        return (opcode == _CONTINUATION) == self._fragmented

    def _control(self, data: bytes, at: int, opcode: int, length: int) -> int:
        behind = at + self._head + length
        if behind > len(data):
            return at
        if opcode == _CLOSE:
            start = at + self._head
            fault = PROTOCOL_ERROR if self._fragmented else _validate_close(data[start:behind], data[at + 2 : start])
            if fault is not None:
                return self._refuse(at, fault)
            self.is_closed = True
        return behind

    def _data(self, data: bytes, at: int, first: int, length: int) -> int:
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            field = data[at + 2 : at + 2 + extended]
            if len(field) < extended:
                return at
            length = int.from_bytes(field, "big")
            # Section 5.2: the shortest encoding must be used, and the top bit of an 8-byte length must be 0.
            if length < (126 if extended == 2 else 65_536) or length >> 63:
                return self._refuse(at, PROTOCOL_ERROR)
        message = (self._message if self._fragmented else 0) + length
        if message > self._max_message:
            return self._refuse(at, TOO_BIG)
        behind = at + self._head + extended
        if behind > len(data):
            return at
        self._message = message
        self._fragmented = not first & 0x80
        self.remaining = length
        return behind

    def _refuse(self, at: int, code: int) -> int:
        self.close_code = code
        self.is_closed = True
        return at


def _validate_close(payload: bytes, key: bytes) -> int | None:
    """Return the code with which to reject a close frame, or None if it is valid (sections 5.5.1, 7.4 and 8.1).

    `key` is the masking key, or empty for an unmasked frame.
    """
    if key:
        payload = bytes(byte ^ key[at & 3] for at, byte in enumerate(payload))
    if not payload:
        return None
    if len(payload) == 1 or not is_sendable_code(int.from_bytes(payload[:2], "big")):
        return PROTOCOL_ERROR
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return INVALID_DATA
    return None
