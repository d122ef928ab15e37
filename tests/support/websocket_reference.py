"""Valid WebSocket frames, and the verdict of the websockets library on any bytes."""

from __future__ import annotations

import struct
from typing import Any

from websockets.client import ClientProtocol
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tests.support.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT

MOST = 1000
MORE: dict[str, Any] = {"fin": False}
RIGHT: dict[str, Any] = {
    "nothing": [],
    "an empty text": [(TEXT, b"", {})],
    "a text": [(TEXT, b"hello", {})],
    "the longest short": [(BINARY, b"x" * 125, {})],
    "the shortest long": [(BINARY, b"x" * 126, {})],
    "a message as large as allowed": [(BINARY, b"x" * MOST, {})],
    "another, in fragments": [(BINARY, b"x" * 400, MORE), (0, b"x" * 599, MORE), (0, b"x", {})],
    "one after the other": [(BINARY, b"x" * MOST, {}), (TEXT, b"y" * MOST, {})],
    "empty fragments": [(TEXT, b"", MORE), *[(0, b"", MORE)] * 50, (0, b"", {})],
    "pings within a message": [
        (TEXT, b"a", MORE),
        (PING, b"p" * 125, {}),
        (0, b"b", MORE),
        (PONG, b"", {}),
        (0, b"", {}),
    ],
    "a close": [(TEXT, b"a", {}), (CLOSE, struct.pack("!H", 4999) + "ü".encode(), {})],
    "a close without a code": [(CLOSE, b"", {})],
    "what is not text, for others to judge": [(TEXT, b"\xff\xfe", {})],
}


def peer(masked: bool) -> Protocol:
    """Return the parser of `websockets` for the same direction."""
    if masked:
        return ServerProtocol(state=OPEN, max_size=MOST)
    return ClientProtocol(parse_uri("ws://a/"), state=OPEN, max_size=MOST)


def judged_by_others(data: bytes, masked: bool) -> Protocol:
    protocol = peer(masked)
    protocol.receive_data(data)
    return protocol
