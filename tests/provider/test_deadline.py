"""A pause of this process does not count towards the provider's deadline: buffered data is read afterwards."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from akoya_gateway.oauth.client_authentication import FormRequest
from akoya_gateway.oauth.token_messages import HttpResponse
from akoya_gateway.provider.transport import ResponseLost, get, post

BODY = json.dumps({"refresh_token": "r-2", "pad": "x" * 150_000}).encode()
TIMEOUT = 1.0


class Threaded:
    """A provider in its own thread, so that it responds while the test's event loop is blocked."""

    def __init__(self, *pieces: bytes) -> None:
        self.requested = threading.Event()
        self.answered = threading.Event()
        self._pieces = pieces
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/token"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65536)
            self.requested.set()
            for piece in self._pieces:
                connection.sendall(piece)
            self.answered.set()
            while connection.recv(65536):  # a close with unread bytes would reset the connection
                pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    server = Threaded(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY)
    yield server
    server.close()


def pause(server: Threaded) -> None:
    """Block the event loop beyond the deadline, as SIGSTOP would."""
    assert server.answered.wait(60)
    time.sleep(TIMEOUT + 0.1)


@pytest.mark.parametrize("after", [0.0, 0.5, 0.97], ids=["at once", "half way", "just before the deadline"])
async def test_response_that_came_during_a_pause_is_read(
    http: httpx.AsyncClient, threaded: Threaded, after: float
) -> None:
    loop = asyncio.get_running_loop()

    async def blocked() -> None:
        await asyncio.to_thread(threaded.requested.wait, 60)
        loop.call_later(max(TIMEOUT * after - (loop.time() - started), 0.0), pause, threaded)

    started = loop.time()
    blocking = asyncio.create_task(blocked())
    # Nothing is read before the pause, because the callback that reads the response is queued behind it.
    response = await post(http, FormRequest(threaded.url, (), (("refresh_token", "r-1"),)), TIMEOUT)
    await blocking
    assert response == HttpResponse(200, BODY)


async def test_document_that_came_during_a_pause_is_read(http: httpx.AsyncClient, threaded: Threaded) -> None:
    asyncio.get_running_loop().call_later(0.5, pause, threaded)
    assert (await get(http, threaded.url, 1 << 20, TIMEOUT)).body == BODY


async def test_pause_does_not_make_a_silent_provider_respond(http: httpx.AsyncClient) -> None:
    silent = Threaded(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
    try:
        asyncio.get_running_loop().call_later(0.5, pause, silent)
        response = await post(http, FormRequest(silent.url, (), ()), TIMEOUT)
        assert response == ResponseLost("no complete response within 1 s")
    finally:
        silent.close()
