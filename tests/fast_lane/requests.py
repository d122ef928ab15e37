"""Sends requests that the fast lane serves."""

from __future__ import annotations

from tests.support.raw_http import Client


def send_request(client: Client, name: str) -> None:
    client.send(b"GET /public/%b HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode())


def warm(port: int) -> Client:
    """Return a client, with an idle upstream connection and cached heads."""
    client = Client(port)
    for _ in range(3):
        send_request(client, "hi")
        assert client.response().body == b"hi"
    return client
