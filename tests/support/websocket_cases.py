"""The groups of the Autobahn test-suite, as client frames and the expected frames of an echo server.

Names begin with Autobahn's case number, so that they can be compared with its descriptions. Expectations follow
RFC 6455, not the observed behaviour of a server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, frame

CONT = 0
Frame = tuple[int, bytes, dict[str, Any]]
MORE: dict[str, Any] = {"fin": False}
NORMAL, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1002, 1007, 1009


@dataclass(frozen=True)
class Case:
    """One case: the frames `sent`, the messages `echoed`, and the `code` of the returned close frame.

    `chop` is the size in bytes of the pieces in which the frames are sent. If a case neither closes nor violates the
    protocol, the client closes after the last echo. If it is closed or failed (RFC 6455 section 7.1.7), echoes in
    flight may be lost.
    """

    sent: tuple[Frame, ...]
    echoed: tuple[tuple[int, bytes], ...] = ()
    pongs: tuple[bytes, ...] = ()
    code: int = NORMAL
    chop: int = field(default=0)
    strictly: Case | None = None
    """Another permitted outcome, where RFC 6455 forbids sending the data but does not require rejecting it."""

    @property
    def in_order(self) -> bool:
        return self.code == NORMAL and not any(opcode == CLOSE for opcode, _, _ in self.sent)

    @property
    def data(self) -> bytes:
        return b"".join(frame(opcode, data, mask=True, **options) for opcode, data, options in self.sent)


def text(data: bytes, **options: Any) -> Frame:
    return (TEXT, data, options)


def close(code: int | None = NORMAL, reason: bytes = b"") -> Frame:
    return (CLOSE, b"" if code is None else struct.pack("!H", code) + reason, {})


def cases() -> dict[str, Case]:
    return dict([*framing(), *pings(), *reserved(), *opcodes(), *fragments(), *utf8(), *closing(), *sizes()])


Named = Iterator[tuple[str, Case]]


def framing() -> Named:
    for opcode, kind, letter in ((TEXT, "text", b"*"), (BINARY, "binary", b"\xfe")):
        for size in (0, 125, 126, 127, 128, 65_535, 65_536):
            data = letter * size
            yield f"1 {kind} of {size}", Case(((opcode, data, {}),), ((opcode, data),))
        data = letter * 65_536
        yield f"1 {kind} of 65536 in pieces of 997", Case(((opcode, data, {}),), ((opcode, data),), chop=997)
        yield (
            f"1 {kind}, long form of a short length",
            Case(
                long := ((opcode, b"hi", {"length": b"\x7e\x00\x02"}),),
                ((opcode, b"hi"),),
                strictly=Case(long, code=PROTOCOL_ERROR),
            ),
        )


def pings() -> Named:
    for name, data in (
        ("empty", b""),
        ("small", b"hello"),
        ("binary", b"\x00\xff\xfe\xfd\xfc"),
        ("125", b"\xfe" * 125),
    ):
        yield f"2 ping, {name}", Case(((PING, data, {}),), pongs=(data,))
    yield "2.5 ping of 126", Case(((PING, b"\xfe" * 126, {}),), code=PROTOCOL_ERROR)
    yield "2.6 ping, byte by byte", Case(((PING, b"\xfe" * 125, {}),), pongs=(b"\xfe" * 125,), chop=1)
    yield "2.7 pong nobody asked for", Case(((PONG, b"", {}),))
    yield "2.8 pong nobody asked for, with content", Case(((PONG, b"unsolicited", {}),))
    yield "2.9 pong, then ping", Case(((PONG, b"unsolicited", {}), (PING, b"ping", {})), pongs=(b"ping",))
    ten = tuple(b"payload-%d" % number for number in range(10))
    yield "2.10 ten pings", Case(tuple((PING, each, {}) for each in ten), pongs=ten)
    yield "2.11 ten pings, byte by byte", Case(tuple((PING, each, {}) for each in ten), pongs=ten, chop=1)


def reserved() -> Named:
    hello = text(b"Hello, world!")
    for bits in (1, 2, 3, 4, 5, 6, 7):
        for opcode, kind in ((TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (CLOSE, "close")):
            data = struct.pack("!H", NORMAL) if opcode == CLOSE else b"a"
            yield f"3 rsv {bits} on {kind}", Case(((opcode, data, {"rsv": bits}),), code=PROTOCOL_ERROR)
    for chop in (0, 1):
        yield f"3 rsv between messages, pieces of {chop}", Case(
            (hello, text(b"Hello, world!", rsv=2), (PING, b"", {})),
            ((TEXT, b"Hello, world!"),), code=PROTOCOL_ERROR, chop=chop,
        )  # fmt: skip


def opcodes() -> Named:
    hello = text(b"Hello, world!")
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"4 opcode {opcode}, empty", Case(((opcode, b"", {}),), code=PROTOCOL_ERROR)
        yield f"4 opcode {opcode}, with content", Case(((opcode, b"reserved", {}),), code=PROTOCOL_ERROR)
        for chop in (0, 1):
            yield f"4 opcode {opcode} after a message, pieces of {chop}", Case(
                (hello, (opcode, b"", {}), (PING, b"", {})),
                ((TEXT, b"Hello, world!"),), code=PROTOCOL_ERROR, chop=chop,
            )  # fmt: skip


def fragments() -> Named:
    one = text(b"fragment1", **MORE)
    two: Frame = (CONT, b"fragment2", {})
    whole = ((TEXT, b"fragment1fragment2"),)
    ping: Frame = (PING, b"ping", {})
    yield "5.1 ping in two", Case(((PING, b"a", MORE), (CONT, b"b", {})), code=PROTOCOL_ERROR)
    yield "5.2 pong in two", Case(((PONG, b"a", MORE), (CONT, b"b", {})), code=PROTOCOL_ERROR)
    for chop in (0, 1):
        yield f"5.3 text in two, pieces of {chop}", Case((one, two), whole, chop=chop)
        yield f"5.6 ping inside, pieces of {chop}", Case((one, ping, two), whole, (b"ping",), chop=chop)
    alone: Frame = (CONT, b"non-continuation", {})
    for fin in (True, False):
        for chop in (0, 1):
            yield (
                f"5.9 continuation of nothing, fin {fin}, pieces of {chop}",
                Case(
                    ((CONT, b"non-continuation", {"fin": fin}), text(b"Hello, world!")), code=PROTOCOL_ERROR, chop=chop
                ),
            )
    yield (
        "5.15 continuation after the end",
        Case((one, two, (CONT, b"fragment3", MORE), text(b"fragment4")), whole, code=PROTOCOL_ERROR),
    )
    yield "5.16 again and again", Case((alone, one, two) * 2, code=PROTOCOL_ERROR)
    yield "5.18 text inside text", Case((one, text(b"fragment2")), code=PROTOCOL_ERROR)
    five: tuple[Frame, ...] = (
        text(b"1", **MORE),
        (CONT, b"2", MORE),
        ping,
        (CONT, b"3", MORE),
        (CONT, b"4", MORE),
        ping,
        (CONT, b"5", {}),
    )
    yield "5.19 five with two pings", Case(five, ((TEXT, b"12345"),), (b"ping", b"ping"))
    yield "5.20 five with two pings, byte by byte", Case(five, ((TEXT, b"12345"),), (b"ping", b"ping"), chop=1)
    empty: tuple[Frame, ...] = (text(b"", **MORE), (CONT, b"", MORE), (CONT, b"", {}))
    yield "6.1.2 three empty fragments", Case(empty, ((TEXT, b""),))
    middle: tuple[Frame, ...] = (text(b"", **MORE), (CONT, b"middle", MORE), (CONT, b"", {}))
    yield "6.1.3 content in the middle one", Case(middle, ((TEXT, b"middle"),))


VALID = {
    "6.2 greek": "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "6.5 kosme": "κόσμε".encode(),
    **{
        f"6 U+{point:04X}": chr(point).encode()
        for point in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x10FFFF)
    },
    **{f"6.22 no character U+{point:X}": chr(point).encode() for point in range(0x1FFFE, 0x10FFFF + 1, 0x10000)},
}
INVALID = {
    "6.3 in the middle of greek": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.8 first of five bytes": b"\xf8\x88\x80\x80\x80",
    "6.8 first of six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "6.10 last of four bytes and beyond": b"\xf7\xbf\xbf\xbf",
    "6.11 just beyond Unicode": b"\xf4\x90\x80\x80",
    **{f"6.12 continuation alone {each:x}": bytes([each]) for each in (0x80, 0xBF)},
    "6.12 all continuations": bytes(range(0x80, 0xC0)),
    **{f"6.13 start alone {each:x}": bytes([each, 0x20]) for each in (0xC2, 0xDF, 0xE0, 0xEF, 0xF0, 0xF4)},
    **{f"6.14 cut {cut.hex()}": cut for cut in (b"\xdf", b"\xe0\xa0", b"\xef\xbf", b"\xf0\x90\x80", b"\xf4\x8f\xbf")},
    "6.15 two cut, side by side": b"\xe0\xa0\xef\xbf",
    **{f"6.16 impossible {each:x}": bytes([each]) for each in (0xFE, 0xFF, 0xC0, 0xC1, 0xF5)},
    **{f"6.17 overlong {each.hex()}": each for each in (b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf")},
    **{f"6.18 most overlong {each.hex()}": each for each in (b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf")},
    **{f"6.19 overlong NUL {each.hex()}": each for each in (b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80")},
    **{
        f"6.20 surrogate {each.hex()}": each
        for each in (
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbf\xbf",
        )
    },
    "6.21 surrogates in a pair": b"\xed\xa0\x80\xed\xb0\x80",
}


def utf8() -> Named:
    for name, data in VALID.items():
        yield name, Case((text(data),), ((TEXT, data),))
        yield f"{name}, cut within characters", Case(_by_byte(data), ((TEXT, data),))
    for name, data in INVALID.items():
        yield name, Case((text(data),), code=INVALID_DATA)
        yield f"{name}, as fragments", Case(_by_byte(data), code=INVALID_DATA)
    yield (
        "6.4 invalid in the second of three fragments",
        Case(
            (text(b"\xce\xba\xe1\xbd\xb9", **MORE), (CONT, b"\xf4\x90\x80\x80", MORE), (CONT, b"edited", {})),
            code=INVALID_DATA,
        ),
    )
    binary = b"".join(INVALID.values())
    yield "6 invalid as text, but it is binary", Case(((BINARY, binary, {}),), ((BINARY, binary),))


def _by_byte(data: bytes) -> tuple[Frame, ...]:
    pieces = [data[at : at + 1] for at in range(len(data))]
    first = (TEXT, pieces[0], {"fin": len(pieces) == 1})
    return first, *((CONT, piece, {"fin": at == len(pieces) - 1}) for at, piece in enumerate(pieces[1:], 1))


def closing() -> Named:
    bye = close()
    hello = text(b"Hello World!")
    yield "7.1.1 message and close", Case((hello, bye), ((TEXT, b"Hello World!"),))
    yield "7.1.2 two closes", Case((bye, bye))
    yield "7.1.3 ping after close", Case((bye, (PING, b"", {})))
    yield "7.1.4 text after close", Case((bye, hello))
    yield "7.1.6 256 KiB, then close", Case((text(b"BAsd7&jh23" * 26_214), bye), ((TEXT, b"BAsd7&jh23" * 26_214),))
    yield "7.3.1 close without a code", Case((close(None),), code=1005)
    yield "7.3.2 close of one byte", Case(((CLOSE, b"a", {}),), code=PROTOCOL_ERROR)
    yield "7.3.4 close with a reason", Case((close(NORMAL, b"Hello World!"),))
    yield "7.3.5 close with the longest reason", Case((close(NORMAL, b"*" * 123),))
    yield "7.3.6 close with too long a reason", Case((close(NORMAL, b"*" * 124),), code=PROTOCOL_ERROR)
    yield (
        "7.5.1 close with a reason that is not text",
        Case((close(NORMAL, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),), code=INVALID_DATA),
    )
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield f"7.7 close code {code}", Case((close(code),), code=code)
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield f"7.9 close code {code}", Case((close(code),), code=PROTOCOL_ERROR)


def sizes() -> Named:
    megabyte = bytes(range(256)) * 4096
    yield "9.2 a binary megabyte", Case(((BINARY, megabyte, {}),), ((BINARY, megabyte),))
    yield "9.1 four megabytes of text", Case((text(b"*" * (4 << 20)),), ((TEXT, b"*" * (4 << 20)),))
    for size in (1024, 65_536):
        pieces = [megabyte[at : at + size] for at in range(0, len(megabyte), size)]
        sent = [(CONT if at else BINARY, piece, {"fin": at == len(pieces) - 1}) for at, piece in enumerate(pieces)]
        yield f"9.4 a megabyte in fragments of {size}", Case(tuple(sent), ((BINARY, megabyte),))
    yield "9.6 a megabyte in pieces of 64", Case(((BINARY, megabyte, {}),), ((BINARY, megabyte),), chop=1024)
    many = tuple(b"%d" % number for number in range(500))
    yield "9.7 five hundred messages", Case(tuple(map(text, many)), tuple((TEXT, each) for each in many))
    yield (
        "9 a frame that says it is longer than allowed",
        Case(((BINARY, b"", {"length": b"\x7f\x00\x00\x00\x7f\xff\xff\xff\xff"}),), code=TOO_BIG),
    )
    yield (
        "10 a message in fragments of 1300",
        Case(
            (
                text(b"*" * 1300, **MORE),
                *((CONT, b"*" * 1300, MORE) for _ in range(48)),
                (CONT, b"*" * 1836, {}),
            ),
            ((TEXT, b"*" * 65_536),),
        ),
    )
