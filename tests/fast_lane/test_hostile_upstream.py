"""Runs the hostile upstream responses of `tests/upstream` against the fast lane of `akoya-gateway run`.

A connection is idle and the heads are cached, so that the cached path is tested as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fast_lane.requests import send_request, warm
from tests.support.hostile_responses import BEHIND, CUT, OK, REFUSED
from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running
from tests.support.waiting import until

DATED = OK + b"Date: Wed, 25 Nov 2026 18:00:00 GMT\r\n"
"""A head that the fast lane caches."""
EXTRA = {
    "a_second_response_behind_a_known_head": DATED + b"Content-Length: 2\r\n\r\nok" + DATED + b"Content-Length: 4\r\n\r\nevil",
    "junk_behind_a_known_head": DATED + b"Content-Length: 2\r\n\r\nokjunk",
    "a_known_head_behind_a_known_head": (DATED + b"Content-Length: 2\r\n\r\nok") * 2,
}  # fmt: skip
SCRIPTS = {name.encode(): response for name, response in {**REFUSED, **CUT, **BEHIND, **EXTRA}.items()}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a gateway in front of an upstream with scripted responses. Other paths get a valid response."""

    def handler(caller: Caller) -> None:
        while True:
            name = caller.head().split(b" ")[1].rpartition(b"/")[2]
            caller.send(SCRIPTS.get(name, DATED + b"Content-Length: %d\r\n\r\n%b" % (len(name), name)))

    with RawUpstream(handler) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "timeout": {"read": "60s"}}}
        with Running(tmp_path_factory.mktemp("gateway"), changes=changes) as run:
            yield run


@pytest.fixture
def lane(gateway: Running) -> int:
    return gateway.port


def test_reason_of_a_refused_response_is_logged(gateway: Running) -> None:
    """The page for browsers does not show it, so the operator would see only a 502."""

    sent = set()

    def reason() -> str | None:
        # At most one event a second is logged, so this request may be one of those without.
        sent.add(gateway.get("/public/two_equal_content_lengths").json()["request_id"])
        events = [line for line in gateway.log() if line["event"] == "request failed"]
        assert {line["level"] for line in events} <= {"warning"}
        return next((line["reason"] for line in events if line["request_id"] in sent), None)

    expected = "the upstream's response was rejected: it is not valid HTTP/1.1 (Duplicate Content-Length)"
    until(lambda: reason() == expected, "it is logged")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(lane: int, name: str) -> None:
    with warm(lane) as client:
        send_request(client, name)
        reply = client.response()
        assert reply.status == 502
        assert b"upstream-invalid-response" in reply.body


@pytest.mark.parametrize("name", CUT)
def test_client_is_cut(lane: int, name: str) -> None:
    with warm(lane) as client:
        send_request(client, name)
        reply = client.rest()
        assert b" 502 " in reply or not reply.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("name", [*BEHIND, *EXTRA])
def test_bytes_after_a_response_never_become_the_next_response(lane: int, name: str) -> None:
    for _ in range(2):
        with warm(lane) as client:
            send_request(client, name)
            assert client.response().body == b"ok"
            for number in range(3):
                send_request(client, f"next{number}")
                assert client.response().body == b"next%d" % number


def test_truncated_responses_are_logged_as_warnings_without_a_traceback(gateway: Running) -> None:
    """Whatever the request has that leads it off the fast lane."""
    requests = {
        "length": b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "body": b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        "chunks": b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "expectation": b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        "version": b"GET %b HTTP/1.0\r\nHost: a\r\n\r\n",
    }
    for request in requests.values():
        for name in ("a_chunk_size_that_is_no_number", "a_bad_trailer"):
            with Client(gateway.port) as client:
                client.send(request % f"/public/{name}".encode())
                assert not client.rest().endswith(b"0\r\n\r\n")
    events = [line for line in gateway.log() if line["event"] != "request"]
    assert {line["level"] for line in events} <= {"info", "warning"}
    assert any(line["event"] == "response truncated" and line["reason"] for line in events)
