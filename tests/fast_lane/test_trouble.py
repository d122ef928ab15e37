"""The lane when somebody on either side of it does not keep up, leaves, or is gone: `akoya-gateway run` as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fast_lane.test_hostile_upstream import ask, warm
from tests.operations.processes import Running
from tests.upstream.harness import Caller, RawUpstream, eventually

OK = b"HTTP/1.1 200 OK\r\n"
PIECE = 1 << 20


class Upstream:
    """Says what it is asked for, and does as the last segment of the path says."""

    def __init__(self) -> None:
        self.left = 0
        self.pieces = 0

    def __call__(self, caller: Caller) -> None:
        served = 0
        while True:
            name = caller.head().split(b" ")[1].rpartition(b"/")[2]
            if name == b"stale" and served:
                return
            if name == b"hang":
                self.left += caller.closed_by_peer()
                return
            if name == b"big":
                caller.send(OK + b"Content-Length: %d\r\n\r\n" % (256 * PIECE))
                for _ in range(256):
                    caller.send(bytes(PIECE))
                    self.pieces += 1
            else:
                caller.send(OK + b"Content-Length: %d\r\n\r\n%b" % (len(name), name))
            served += 1


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, RawUpstream, Upstream]]:
    app = Upstream()
    with RawUpstream(app) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "timeout": {"read": "20s"}}}
        with Running(tmp_path_factory.mktemp("gateway"), changes=changes) as run:
            yield run.port, upstream, app


def test_a_connection_that_was_just_closing_costs_an_idempotent_request_nothing(
    lane: tuple[int, RawUpstream, Upstream],
) -> None:
    port, upstream, _ = lane
    with warm(port) as client:
        ask(client, "stale")
        assert client.response().body == b"stale"
    assert sum(b"/public/stale" in head for head in upstream.heads) == 2


def test_what_may_have_had_an_effect_is_not_sent_again(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, upstream, _ = lane
    before = sum(b"/public/stale" in head for head in upstream.heads)
    with warm(port) as client:
        client.send(b"POST /public/stale HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().status == 502
    assert sum(b"/public/stale" in head for head in upstream.heads) == before + 1


def test_a_client_that_leaves_is_noticed_by_the_upstream(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, upstream, app = lane
    with warm(port) as client:
        ask(client, "hang")
        assert eventually(lambda: any(b"/public/hang" in head for head in upstream.heads))
    assert eventually(lambda: app.left == 1, 5)


def test_a_slow_reader_stops_the_upstream(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, _, app = lane
    with warm(port) as client:
        ask(client, "big")
        client.until(b"\r\n\r\n")
        time.sleep(1)
        assert app.pieces < 64
        held = app.pieces
        taken = len(client.buffer)
        while taken < 100 * PIECE:
            taken += len(client.sock.recv(PIECE))
        assert app.pieces > held
