"""Tests of mixed requests on keep-alive connections, split anywhere, pipelined or not, with a misbehaving upstream.

Every complete response must belong to its request and come in order, with and without the fast lane.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
OK = b"HTTP/1.1 200 OK\r\n"
CLIENTS, TURNS = 8, 30


def serve(caller: Caller) -> None:
    """Serve `/public/KIND/NAME`. The response body is `NAME:` and the request body. KIND selects how it is sent."""
    while True:
        head = caller.head()
        method, target = head.split(b" ")[:2]
        _, _, kind, name = target.split(b"/")
        if kind == b"early":
            caller.send(OK + b"Content-Length: %d\r\n\r\n%b:" % (len(name) + 1, name))
        body = received(caller, head)
        if kind == b"early":
            continue
        content = name + b":" + body
        length = b"Content-Length: %d\r\n\r\n" % len(content)
        content = b"" if method == b"HEAD" else content
        match kind:
            case b"hints":
                caller.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + length + content)
            case b"chunked" if method != b"HEAD":
                caller.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
                for byte in content:
                    caller.send(b"1\r\n%c\r\n" % byte)
                caller.send(b"0\r\n\r\n")
            case b"pieces":
                for byte in OK + length + content:
                    caller.send(b"%c" % byte)
            case b"behind":
                caller.send(OK + length + content + EVIL)
            case b"close":
                caller.send(OK + b"Connection: close\r\n" + length + content)
                return
            case b"until" if method != b"HEAD":
                caller.send(OK + b"\r\n" + content)
                return
            case b"gone":
                return
            case b"slow":
                time.sleep(0.02)
                caller.send(OK + length + content)
            case _:
                caller.send(OK + length + content)


def received(caller: Caller, head: bytes) -> bytes:
    if b"\r\ncontent-length: " in head:
        return caller.exactly(int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
    body = b""
    if b"\r\ntransfer-encoding: chunked" in head:
        while size := int(caller.until(b"\r\n"), 16):
            body += caller.exactly(size)
            caller.until(b"\r\n")
        caller.until(b"\r\n")
    return body


KINDS = ["plain"] * 8 + ["hints", "chunked", "pieces", "behind", "close", "until", "slow", "early", "gone"]


def request(dice: random.Random, name: str) -> tuple[bytes, str, str, bytes]:
    """Return a request's bytes, method, kind and body."""
    method = dice.choice(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE"])
    kind = dice.choice(KINDS)
    body = bytes(dice.choices(b"GET /\r\n x", k=dice.randrange(1, 200))) if method in ("POST", "PUT") else b""
    lines = [f"{method} /public/{kind}/{name} HTTP/1.1", "Host: a", *dice.choices(["X-A: b", "x-a:b", "X_A: c"], k=2)]
    if not body:
        return "\r\n".join([*lines, "", ""]).encode(), method, kind, body
    if dice.random() < 0.5:
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        return head + body, method, kind, body
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    return head + b"%x;ext=1\r\n%b\r\n0\r\nX-T: 1\r\n\r\n" % (len(body), body), method, kind, body


def send(dice: random.Random, client: Client, data: bytes) -> None:
    """Send the data in up to four pieces."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(4)))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        client.send(data[start:end])
        if dice.random() < 0.3:
            time.sleep(0.002)


def check_response(client: Client, name: str, method: str, kind: str, body: bytes) -> None:
    if method == "HEAD":
        assert client.until(b"\r\n\r\n").split()[1] in (b"200", b"502")
        if kind == "gone":
            # A response to HEAD has the length of the problem document, but not the document.
            assert not client.buffer.startswith(b"{")
        return
    response = client.response()
    if kind == "gone":
        assert response.status == 502
    elif response.status != 502:
        assert response.body == name.encode() + b":" + (b"" if kind == "early" else body)
    else:
        # It was sent on a connection that the upstream was closing, and must not be retried.
        assert method in ("POST", "PUT")


@pytest.fixture(scope="module", params=[(), ("--no-fast-lane",)], ids=["lane", "no lane"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with RawUpstream(serve) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "pool": 6}}
        with Running(tmp_path_factory.mktemp("gateway"), *request.param, changes=changes) as run:
            yield run.port
            assert not [line for line in run.log() if line["level"] in ("error", "critical")]
        assert upstream.errors == []


@pytest.mark.parametrize("seed", range(4))
def test_responses_are_in_the_order_of_their_requests(port: int, seed: int) -> None:
    def one_client(number: int) -> None:
        dice = random.Random(f"{seed}/{number}")
        with Client(port) as client:
            for turn in range(TURNS):
                if dice.random() < 0.1:
                    # The client disconnects in the middle of a request.
                    client.send(request(dice, "left")[0][: dice.randrange(1, 60)])
                    client.sock.close()
                    client.__init__(port)  # type: ignore[misc]
                names = [f"{number}-{turn}-{each}" for each in range(dice.choice([1, 1, 1, 2, 4]))]
                requests = [request(dice, name) for name in names]
                send(dice, client, b"".join(data for data, *_ in requests))
                for name, (_, method, kind, body) in zip(names, requests, strict=True):
                    check_response(client, name, method, kind, body)
            assert client.buffer == b""

    with ThreadPoolExecutor(CLIENTS) as many:
        list(many.map(one_client, range(CLIENTS)))
