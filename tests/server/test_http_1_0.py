"""Tests that no route sends chunked responses to HTTP/1.0 clients, and that each response ends with its connection."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.processes import AppServer
from tests.support.sidecar import Running

PUBLIC = [
    "/public/x", "/public/stream", "/public/events", "/nowhere", "/akoya/connections", "/akoya/connect/mikomo", "/akoya/connect/none",
    "/akoya/callback?state=a&code=b", "/akoya/forward-auth", "/akoya/nothing", "/public/../x", "/akoya/account-hints", "/akoya/logout",
]  # fmt: skip
ADMIN = ["/livez", "/readyz", "/metrics", "/akoya/token/mikomo", "/none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("run"), changes={"forward_auth": True}) as run:
        # Streams of the test app end at once.
        run.app.go.set()
        yield run


def until_closed(port: int, request: str) -> tuple[str, bytes]:
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.sendall(request.encode())
        data = b""
        while more := raw.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode().lower(), body


def check(head: str, body: bytes) -> None:
    assert head.startswith("http/1.1 ")
    assert "transfer-encoding" not in head
    assert head.count("\r\nconnection: close") == 1
    length = re.search(r"\r\ncontent-length: (\d+)", head)
    assert length is None or int(length[1]) == len(body)


@pytest.mark.parametrize("lines", ["", "Connection: keep-alive\r\n"], ids=["", "keep-alive"])
@pytest.mark.parametrize("target", PUBLIC + ADMIN)
def test_http_1_0_client_gets_no_chunks_from_any_route(run: Running, target: str, lines: str) -> None:
    port = run.admin_port if target in ADMIN else run.port
    check(*until_closed(port, f"GET {target} HTTP/1.0\r\nHost: 127.0.0.1:{run.port}\r\n{lines}\r\n"))


@pytest.mark.parametrize(
    "request_line", ["GET /public/x HTTP/1.0\r\nA b: c", "GET /public/x#y HTTP/1.0", "GET  HTTP/1.0"]
)
def test_http_1_0_request_that_is_refused_gets_a_response_without_chunks(run: Running, request_line: str) -> None:
    head, body = until_closed(run.port, f"{request_line}\r\nHost: a\r\n\r\n")
    check(head, body)
    assert head.startswith("http/1.1 400")


def test_http_1_0_request_behind_one_of_http_1_1_gets_no_chunks(run: Running) -> None:
    host = f"Host: 127.0.0.1:{run.port}\r\n\r\n"
    head, rest = until_closed(run.port, f"GET /public/stream HTTP/1.1\r\n{host}GET /public/stream HTTP/1.0\r\n{host}")
    assert "\r\ntransfer-encoding: chunked" in head
    first, second = rest.split(b"0\r\n\r\n")
    assert first.endswith(b"\r\n")
    head, _, body = second.decode().partition("\r\n\r\n")
    check(head.lower(), body.encode())
    assert body == "done"


def test_app_under_another_server_gives_http_1_0_clients_no_chunks(run: Running) -> None:
    """With the httptools parser, uvicorn itself sends chunked responses to HTTP/1.0 clients."""
    from akoya_gateway import load_config, sidecar
    from tests.support.sidecar import ENVIRON

    config = load_config(run.gateway.config_path, ENVIRON)
    for parser in ("httptools", "h11"):
        with AppServer(sidecar(config), lifespan="on", http=parser) as server:
            for target in PUBLIC:
                check(*until_closed(server.port, f"GET {target} HTTP/1.0\r\nHost: 127.0.0.1:{run.port}\r\n\r\n"))
