"""Builds and reads WebSocket frames by hand (RFC 6455 section 5.2), including invalid ones."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from tests.support.raw_http import Client

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_KEY = b"\x11\x22\x33\x44"


def request(path: bytes = b"/") -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path
    )


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = False, length: bytes | None = None
) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if length is None:
        size = len(data)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    length = bytes([length[0] | bit]) + length[1:]
    if mask:
        pad = (_KEY * (len(data) // 4 + 1))[: len(data)]
        masked = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
        data = _KEY + masked.to_bytes(len(data), "big")
    return bytes([first]) + length + data


def frames(specification: Any, *, mask: bool) -> bytes:
    return b"".join(frame(opcode, data, mask=mask, **options) for opcode, data, options in specification)


def read_frame(client: Client) -> tuple[int, bytes]:
    """Read an unmasked frame. Return opcode and payload."""
    first, data = read_raw_frame(client)
    return first & 15, data


def read_raw_frame(client: Client) -> tuple[int, bytes]:
    """Read an unmasked frame. Return its first byte and payload."""

    def exactly(size: int) -> bytes:
        while len(client.buffer) < size:
            data = client.sock.recv(65536)
            if not data:
                raise EOFError
            client.buffer += data
        data, client.buffer = client.buffer[:size], client.buffer[size:]
        return data

    first, size = exactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", exactly(8))
    return first, exactly(size)


def read_until_closed(client: Client) -> tuple[list[tuple[int, bytes]], int | None]:
    """Return the messages and the close code (None if the connection ended without a close frame)."""
    found, _, code = read_all(client)
    return found, code


def read_all(
    client: Client, messages: int | None = None, pongs_wanted: int = 0
) -> tuple[list[tuple[int, bytes]], list[bytes], int | None]:
    """Return the messages, the payloads of pongs and the close code.

    The close code is None if the connection ended without a close frame, and 1005 if the frame had no code. With
    `messages`, return once that many messages and `pongs_wanted` pongs have arrived.
    """
    found: list[tuple[int, bytes]] = []
    pongs: list[bytes] = []
    kind, message = 0, b""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while messages is None or len(found) < messages or len(pongs) < pongs_wanted:
            first, data = read_raw_frame(client)
            opcode = first & 15
            if opcode == CLOSE:
                return found, pongs, struct.unpack("!H", data[:2])[0] if data else 1005
            if opcode == PONG:
                pongs.append(data)
            elif opcode in (0, TEXT, BINARY):
                kind, message = opcode or kind, message + data
                if first & 0x80:
                    found.append((kind, message))
                    message = b""
    return found, pongs, None
