"""Unit tests of the frame validator: what passes, what is refused with which code, however the bytes are split."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame

from akoya_gateway.upstream.websocket.frame_validator import FrameValidator
from tests.support.websocket_cases import cases
from tests.support.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, frame, frames
from tests.support.websocket_reference import MORE, MOST, RIGHT, judged_by_others

SCALE = 4 if os.environ.get("AKOYA_SOAK") == "full" else 1


def read(
    data: bytes, cuts: list[int] | None = None, *, masked: bool = True, most: int = MOST
) -> tuple[bytes, FrameValidator]:
    """Feed the data in pieces that end at `cuts`. Return the bytes that passed, and the validator."""
    reader = FrameValidator(masked=masked, max_message=most)
    ends = sorted({min(cut, len(data)) for cut in cuts or []} | {len(data)})
    passed, at = b"", 0
    for end in ends:
        passed += reader.feed(data[at:end])
        at = end
    return passed, reader


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("sent", RIGHT.values(), ids=RIGHT.keys())
def test_valid_frames_pass_byte_for_byte(sent: Any, masked: bool) -> None:
    data = frames(sent, mask=masked)
    passed, reader = read(data, masked=masked)
    assert passed == data
    assert reader.close_code is None
    assert reader.is_closed == any(opcode == CLOSE for opcode, _, _ in sent)
    assert reader.remaining == 0


WRONG: dict[str, tuple[int, Any]] = {
    **{f"reserved bits {bits}": (1002, [(TEXT, b"a", {"rsv": bits})]) for bits in range(1, 8)},
    **{f"opcode {opcode}": (1002, [(opcode, b"a", {})]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping of 126 bytes": (1002, [(PING, b"p" * 126, {})]),
    "a ping in eight bytes of length": (1002, [(PING, b"p", {"length": b"\x7f" + bytes(7) + b"\x01"})]),
    "a pong in two": (1002, [(PONG, b"p", MORE)]),
    "a close in two": (1002, [(CLOSE, b"\x03\xe8", MORE)]),
    "a continuation of nothing": (1002, [(0, b"a", {})]),
    "a message within a message": (1002, [(TEXT, b"a", MORE), (BINARY, b"b", {})]),
    "a continuation after the end": (1002, [(TEXT, b"a", MORE), (0, b"b", {}), (0, b"c", {})]),
    "a close within a message": (1002, [(TEXT, b"a", MORE), (CLOSE, b"\x03\xe8", {})]),
    "a short length in two bytes": (1002, [(TEXT, b"a" * 125, {"length": b"\x7e\x00\x7d"})]),
    "a short length in eight bytes": (1002, [(TEXT, b"a", {"length": b"\x7f" + bytes(7) + b"\x01"})]),
    "a length of two bytes in eight": (1002, [(TEXT, b"a", {"length": b"\x7f" + bytes(6) + b"\xff\xff"})]),
    "a negative length": (1002, [(TEXT, b"a", {"length": b"\x7f" + b"\x80" + bytes(7)})]),
    "a message larger than allowed": (1009, [(BINARY, b"x" * (MOST + 1), {})]),
    "fragments larger than allowed": (1009, [(BINARY, b"x" * MOST, MORE), (0, b"", MORE), (0, b"x", {})]),
    "a length beyond all memory": (1009, [(BINARY, b"", {"length": b"\x7f\x7f" + b"\xff" * 7})]),
    "a close of one byte": (1002, [(CLOSE, b"\x03", {})]),
    "a close with a reason that is no text": (1007, [(CLOSE, b"\x03\xe8\xff", {})]),
    **{
        f"close code {code}": (1002, [(CLOSE, struct.pack("!H", code), {})])
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("code", "sent"), WRONG.values(), ids=WRONG.keys())
def test_invalid_frames_are_refused(code: int, sent: Any, masked: bool) -> None:
    """Everything before the invalid frame passes. No byte of that frame, or after it, ever passes."""
    before = frames([(TEXT, b"before", {}), *sent[:-1]], mask=masked)
    after = frames([(TEXT, b"after", {})], mask=masked)
    passed, reader = read(before + frames(sent[-1:], mask=masked) + after, masked=masked)
    assert passed == before
    assert (reader.is_closed, reader.close_code, reader.remaining) == (True, code, 0)
    assert reader.feed(after) == b""


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("code", "sent"), [*WRONG.values(), *((None, sent) for sent in RIGHT.values())])
def test_frame_a_read_is_as_all_at_once(code: int | None, sent: Any, masked: bool) -> None:
    """Most frames arrive one per read, and small ones then take a separate code path."""
    reader = FrameValidator(masked=masked, max_message=MOST)
    passed = b"".join(reader.feed(frames([one], mask=masked)) for one in sent)
    assert passed == frames(sent if code is None else sent[:-1], mask=masked)
    assert reader.close_code == code


def test_limit_may_be_smaller_than_the_smallest_frames() -> None:
    reader = FrameValidator(masked=True, max_message=10)
    assert reader.feed(frame(TEXT, b"x" * 10, mask=True)) == frame(TEXT, b"x" * 10, mask=True)
    assert reader.feed(frame(TEXT, b"x" * 11, mask=True)) == b""
    assert reader.close_code == 1009


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("opcode", [TEXT, CLOSE, PING])
def test_side_that_masks_what_it_should_not_or_does_not_what_it_should_is_refused(masked: bool, opcode: int) -> None:
    payload = b"\x03\xe8" if opcode == CLOSE else b"hello"
    passed, reader = read(frame(opcode, payload, mask=not masked), masked=masked)
    assert (passed, reader.close_code) == (b"", 1002)


def test_nothing_passes_behind_a_close_frame() -> None:
    bye = frame(CLOSE, b"\x03\xe8", mask=True)
    passed, reader = read(bye + frame(TEXT, b"a", mask=True) + bye)
    assert passed == bye
    assert reader.feed(frame(TEXT, b"a", mask=True)) == b""


def test_what_is_held_is_less_than_a_control_frame() -> None:
    """The held bytes stay bounded even if an attacker sends a header byte by byte."""
    data = frame(PING, b"p" * 125, mask=True)
    reader = FrameValidator(masked=True, max_message=MOST)
    for at in range(len(data) - 1):
        assert reader.feed(data[at : at + 1]) == b""
    assert len(reader._held) == 130
    assert reader.feed(data[-1:]) == data


def test_payload_passes_as_it_comes() -> None:
    data = frame(BINARY, b"x" * 900, mask=True)
    reader = FrameValidator(masked=True, max_message=MOST)
    assert reader.feed(data[:100]) == data[:100]
    assert reader.remaining == 908 - 100
    assert reader.feed(data[100:]) == data[100:]
    assert reader.remaining == 0


# -- any cut, any bytes


def loose_frame() -> st.SearchStrategy[bytes]:
    """Generate mostly valid frames, because otherwise long streams would be refused early."""
    likely = st.sampled_from([0, 1, 2, 8, 9, 10])
    opcode = st.one_of(likely, likely, likely, st.integers(0, 15))
    fin = st.one_of(st.just(True), st.just(True), st.booleans())
    rsv = st.one_of(*[st.just(0)] * 9, st.integers(0, 7))
    mask = st.one_of(*[st.just(True)] * 9, st.booleans())
    payload = st.one_of(
        st.binary(max_size=10),
        st.sampled_from(
            [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xec", b"x" * 125, b"x" * 126, b"x" * 999, b"x" * 1001]
        ),
    )
    return st.builds(lambda o, p, f, r, m: frame(o, p, fin=f, rsv=r, mask=m), opcode, payload, fin, rsv, mask)


streams = st.one_of(st.lists(loose_frame(), max_size=12).map(b"".join), st.binary(max_size=60))
flipped = st.tuples(streams, st.integers(0, 10_000), st.integers(0, 255)).map(
    lambda made: made[0][: made[1]] + bytes([made[2]]) + made[0][made[1] + 1 :] if made[1] < len(made[0]) else made[0]
)
cuts = st.lists(st.integers(0, 3000), max_size=12)


@given(st.one_of(streams, flipped), cuts, st.booleans())
@settings(max_examples=200 * SCALE)
def test_no_cut_changes_what_passes_or_the_verdict(data: bytes, where: list[int], masked: bool) -> None:
    at_once, reader = read(data, masked=masked)
    in_pieces, other = read(data, where, masked=masked)
    assert in_pieces == at_once == data[: len(at_once)]
    assert (other.is_closed, other.close_code, other.remaining) == (
        reader.is_closed,
        reader.close_code,
        reader.remaining,
    )


def test_byte_by_byte_is_as_at_once() -> None:
    for name, case in cases().items():
        data = case.data[:3000]
        assert read(data, list(range(len(data))), most=16 << 20)[0] == read(data, most=16 << 20)[0], name


@given(st.one_of(streams, flipped), st.booleans())
@settings(max_examples=300 * SCALE)
@example(frame(TEXT, b"a", fin=False, mask=True) + frame(CLOSE, b"\x03\xe8", mask=True), True)
def test_nothing_passes_that_websockets_refuses(data: bytes, masked: bool) -> None:
    passed, _ = read(data, masked=masked)
    error = judged_by_others(passed, masked).parser_exc
    assert error is None, f"{error!r} for {passed!r}"


@given(st.lists(loose_frame(), max_size=12).map(b"".join))
@settings(max_examples=200 * SCALE)
def test_whole_frames_that_websockets_takes_pass(data: bytes) -> None:
    """The generated frames use the shortest length encoding. The validator additionally refuses any longer encoding."""
    if judged_by_others(data, masked=True).parser_exc is None:
        passed, reader = read(data)
        assert reader.close_code is None
        assert reader.is_closed or passed == data


@given(st.lists(loose_frame(), max_size=12).map(b"".join), cuts)
@settings(max_examples=150 * SCALE)
def test_gateway_frame_can_be_sent_wherever_no_frame_is_incomplete(data: bytes, where: list[int]) -> None:
    """At any cut where the validator reports a frame boundary, `websockets` parses an inserted ping as a frame."""
    reader = FrameValidator(masked=True, max_message=MOST)
    passed = reader.feed(data[: where[0]] if where else data)
    if not reader.remaining and reader.close_code is None and not reader.is_closed:
        protocol = judged_by_others(passed + frame(PING, b"ours", mask=True), True)
        events = [event for event in protocol.events_received() if isinstance(event, Frame)]
        assert protocol.parser_exc is None
        assert bytes(events[-1].data) == b"ours"
