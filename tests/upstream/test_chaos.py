"""Stress test with many clients and an upstream that misbehaves at random.

Every complete response that a client gets must belong to its request. One case cannot be detected: a second response
that leaves the upstream when the next request is already on its way. Stray bytes that arrive with a response, or while
the connection is idle, can be detected.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.raw_http import Caller, RawUpstream, proxied
from tests.support.waiting import until

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def misbehave(dice: random.Random, caller: Caller) -> None:
    """Serve one connection. Every response names its request, but not every response is valid."""
    while True:
        head = caller.head()
        method, target = head.split(b" ")[:2]
        if b"content-length: " in head:
            caller.exactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        body = b"" if method == b"HEAD" else target * 50
        right = b"HTTP/1.1 200 OK\r\nX-Target: %b\r\nContent-Length: %d\r\n\r\n%b" % (target, len(target * 50), body)
        match dice.randrange(14):
            case 0:
                caller.send(right + EVIL)
            case 1:
                caller.send(right + EVIL[: dice.randrange(1, len(EVIL))])
            case 2:
                caller.send(right[: len(right) // 2])
                return
            case 3:
                return
            case 4:
                caller.send(right[:-1] if body else right)
                caller.reset()
                return
            case 5 if method != b"HEAD":
                caller.send(b"HTTP/1.1 200 OK\r\nX-Target: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % target)
                for _ in range(50):
                    caller.send(b"%x\r\n%b\r\n" % (len(target), target))
                caller.send(b"0\r\n\r\n")
            case 6:
                caller.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                time.sleep(0.001)
                caller.send(right)
            case 7:
                caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!")
            case 8:
                caller.send(right)
                return
            case 9:
                caller.send(right + (b"" if body else b"evil"))
            case 10:
                time.sleep(0.01)
                caller.send(right)
            case _:
                caller.send(right)


@pytest.mark.parametrize("seed", range(3))
def test_no_response_is_ever_delivered_to_another_request(seed: int) -> None:
    dice = random.Random(seed)

    def one_client(number: int) -> int:
        mine = random.Random(f"{seed}/{number}")
        complete = 0
        for turn in range(40):
            target = f"/{number}/{turn}"
            method = mine.choice(["GET", "GET", "HEAD", "POST", "PUT"])
            body = b"x" * mine.randrange(3000) if method in ("POST", "PUT") else None
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                connection.request(method, target, body=body)
                response = connection.getresponse()
                reply = response.read()
                if response.status == 200:
                    assert response.headers["x-target"] == target
                    assert reply == (b"" if method == "HEAD" else target.encode() * 50)
                    complete += 1
                else:
                    assert response.status == 502
            connection.close()
        return complete

    with (
        RawUpstream(lambda caller: misbehave(dice, caller)) as upstream,
        proxied(upstream.origin, pool=6, read=5) as proxy,
        ThreadPoolExecutor(12) as many,
    ):
        complete = sum(many.map(one_client, range(12)))
        assert upstream.errors == []
        assert complete > 200, "too few complete responses: the test upstream misbehaves too often"
        assert proxy.pool.size <= 6
        until(lambda: proxy.pool.size == proxy.pool.idle)
        assert proxy.pool.waiting == 0
