"""Tests the constant-rate load generator against a server that stalls, fails or closes connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.rig.steady import BadResponse, Load, from_now, length, moments, run

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Responder = Callable[[int], bytes]


@contextmanager
def server(responder: Responder) -> Iterator[tuple[str, int]]:
    """A server that calls `responder(n)` for its nth request, counted from 0; an empty result closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    numbers = iter(range(1_000_000))

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                content = responder(next(numbers))
                if not content:
                    return
                connection.sendall(content)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.close()


def test_pause_is_counted_for_every_request_that_was_due() -> None:
    """A closed-loop generator would have seen only one slow response."""

    def respond(number: int) -> bytes:
        if number == 10:
            time.sleep(0.5)
        return ANSWER

    with server(respond) as address:
        load = Load(address, REQUEST, 1)
        load.send(from_now([each * 10_000_000 for each in range(100)]))
    assert len(load.latencies) == 100
    slow = [each for each in load.latencies if each > 100_000_000]
    assert len(slow) >= 30
    assert load.failures == []


def test_waiting_for_a_connection_is_not_the_load_being_late() -> None:
    def respond(number: int) -> bytes:
        time.sleep(0.2)
        return ANSWER

    with server(respond) as address:
        load = Load(address, REQUEST, 1)
        load.send(from_now([0] * 10))
    assert max(load.latencies) > 1_600_000_000
    assert sum(load.late) < sum(load.latencies) / 2


@pytest.mark.parametrize("trouble", [b"", b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"])
def test_failed_records_are_counted_and_the_rest_is_processed(trouble: bytes) -> None:
    with server(lambda number: trouble if number == 3 else ANSWER) as address:
        load = Load(address, REQUEST, 2)
        load.send(from_now([each * 1_000_000 for each in range(20)]))
    assert len(load.failures) == 1
    assert len(load.latencies) == 20


def test_warm_up_does_not_count() -> None:
    with server(lambda number: ANSWER) as address:
        found = run(Load(address, REQUEST, 4), rate=200, seconds=0.5, seed=1)
    assert found["requests"] == len(moments(200, 0.5, 1))
    assert found["bytes"] == found["requests"] * len(ANSWER)
    assert found["errors"] == 0


def test_requests_are_due_at_the_same_moments_for_the_same_seed() -> None:
    assert moments(5000, 1, 7) == moments(5000, 1, 7)
    assert moments(5000, 1, 7) != moments(5000, 1, 8)
    due = moments(5000, 4, 7)
    assert due == sorted(due)
    assert 19_000 < len(due) < 21_000
    assert due[-1] < 4e9


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhel", 51),
        (ANSWER, len(ANSWER)),
    ],
)
def test_response_has_a_content_length(data: bytes, size: int) -> None:
    assert length(data) == size


@pytest.mark.parametrize("data", [b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_response_of_ambiguous_length_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        length(data)
