"""A response that is aborted after its start does not look complete to the client."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from akoya_gateway.gateway.response_abort import abort_response
from akoya_gateway.server.websocket_protocol import GuardedWebSocketProtocol
from akoya_gateway.upstream.client_send import ClientSend
from tests.support.processes import AppServer


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Send half of a response, and abort it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    assert abort_response(send)


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_aborted_response_under_uvicorn_does_not_look_complete(implementation: str) -> None:
    with AppServer(app, http=implementation, lifespan="off") as server:
        for version in (b"1.0", b"1.1"):
            response, was_reset = b"", False
            with socket.create_connection(("127.0.0.1", server.port), 30) as client:
                client.sendall(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
                try:
                    while data := client.recv(65_536):
                        response += data
                except ConnectionResetError:
                    was_reset = True
            is_chunked = b"transfer-encoding: chunked" in response.lower()
            assert was_reset or (is_chunked and not response.endswith(b"0\r\n\r\n")), version


def test_send_of_an_outer_gateway_or_of_our_websockets_is_not_aborted() -> None:
    """The caller raises then. Their objects were taken for responses of `server.http_1_0`."""
    outer = ClientSend().__call__
    own: Any = GuardedWebSocketProtocol.__new__(GuardedWebSocketProtocol).send
    assert not abort_response(outer)
    assert not abort_response(own)
