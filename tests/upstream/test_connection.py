"""Unit tests of the connection: the response handler gets the same calls however the bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.connection_in_memory import Holder, RecordingTransport, new_connection
from tests.support.hostile_responses import BEHIND, CUT, REFUSED


def deliver(response: bytes, cuts: list[int], *, head_only: bool = False) -> tuple[Holder, RecordingTransport]:
    connection, holder, transport = new_connection()
    connection.start(b"request", holder, head_only=head_only)
    edges = sorted({0, len(response), *[cut % (len(response) + 1) for cut in cuts]})
    for start, end in itertools.pairwise(edges):
        if transport.closed:
            break
        connection.data_received(response[start:end])
    return holder, transport


GOOD = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "informational": b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n",
}


@pytest.mark.parametrize("response", GOOD.values(), ids=GOOD.keys())
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_pieces_a_response_comes_in_make_no_difference(response: bytes, cuts: list[int]) -> None:
    whole, _ = deliver(response, [])
    pieces, transport = deliver(response, cuts)
    assert pieces.diary == whole.diary
    assert pieces.diary[-1] == "end"
    assert pieces.idle == 1
    assert not transport.closed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_response_to_head_closes_the_connection_however_it_is_cut(cuts: list[int]) -> None:
    holder, transport = deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", cuts, head_only=True)
    assert holder.diary[-1] == "end"
    assert holder.idle == 0
    assert transport.closed


@pytest.mark.parametrize("name", [name for name, response in (REFUSED | CUT).items() if len(response) < 2000])
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_no_way_of_cutting_it_makes_a_refused_response_pass(name: str, cuts: list[int]) -> None:
    holder, transport = deliver((REFUSED | CUT)[name], cuts)
    assert "end" not in holder.diary
    assert holder.idle == 0
    if transport.closed:
        assert isinstance(holder.diary[-1], type)


@pytest.mark.parametrize("response", BEHIND.values(), ids=BEHIND.keys())
@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_data_after_a_response_closes_the_connection_in_any_segmentation(response: bytes, cuts: list[int]) -> None:
    holder, transport = deliver(response, cuts)
    assert holder.diary[-2:] == [b"ok", "end"]
    assert transport.closed


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_no_bytes_make_it_raise(tail: bytes, cuts: list[int], head_only: bool) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        holder, transport = deliver(start + tail, cuts, head_only=head_only)
        assert holder.diary.count("end") + sum(isinstance(entry, type) for entry in holder.diary) <= 1
        if not transport.closed and "end" in holder.diary:
            assert holder.idle == 1


def test_each_phase_has_its_own_deadline() -> None:
    connection, holder, transport = new_connection()
    connection.start(b"head", holder, complete=False)
    assert connection.deadline == 5  # The client must send its body.
    connection.pause_writing()
    assert connection.deadline == 3  # The upstream must accept the bytes.
    connection.resume_writing()
    holder.now = 10
    connection.finish_request()
    assert connection.deadline == 15  # The upstream must respond.
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    connection.pause_reading()
    assert connection.deadline == float("inf")  # A slow client is not the upstream's fault.
    assert transport.paused
    holder.now = 100
    connection.resume_reading()
    assert connection.deadline == 105
    connection.tick(104, 50)
    assert holder.diary[-1] == "tick"
    connection.tick(106, 50)
    assert transport.closed
    assert isinstance(holder.diary[-1], type)


def test_response_before_the_end_of_the_request_costs_the_connection() -> None:
    connection, holder, transport = new_connection()
    connection.start(b"head", holder, complete=False)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert holder.diary[-1] == "end"
    assert transport.closed
    assert holder.idle == 0


def test_response_before_the_request_is_sent_closes_the_connection() -> None:
    connection, holder, transport = new_connection()
    connection.start(b"head and body", holder)
    transport.unsent = 4
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert holder.diary[-1] == "end"
    assert transport.closed
    assert holder.idle == 0


def test_bytes_that_come_before_the_first_request_close_the_connection() -> None:
    connection, _, transport = new_connection()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert transport.closed
    assert not connection.usable


def test_connection_that_is_reused_from_within_the_end_of_a_response_gets_no_bytes_of_the_old_one() -> None:
    """The handler may start the next request at once (a pipelining client on the fast lane)."""
    connection, _, transport = new_connection()
    second = Holder()

    class Eager(Holder):
        def on_end(self) -> None:
            super().on_end()
            if connection.usable:
                connection.start(b"second", second)

    eager = Eager()
    connection.start(b"first", eager)
    connection.data_received(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    )
    assert eager.diary[-1] == "end"
    assert second.diary == []
    assert transport.closed
