"""Tests of what `akoya_gateway` uses of uvicorn, httptools and websockets beyond their documented API.

If one of these fails after an upgrade, review every use before changing the list.
"""

from __future__ import annotations

import inspect
import logging

import httptools
import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server, ServerState
from websockets.server import ServerProtocol

HTTP_ATTRIBUTES = (
    "app", "client", "connections", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "pipeline", "scheme",
    "scope", "server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport", "ws_protocol_class",
)  # fmt: skip
HTTP_METHODS = (
    "_should_upgrade", "_start_asgi_task", "_unset_keepalive_if_required", "connection_lost", "connection_made", "data_received",
    "on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete", "on_url",
    "shutdown", "timeout_keep_alive_handler",
)  # fmt: skip
CYCLE_ATTRIBUTES = (
    "body", "disconnected", "keep_alive", "message_event", "more_body", "on_response", "response_complete", "response_started", "transport",
)  # fmt: skip
CYCLE_CALLS = {"transport.write", "transport.close", "transport.is_closing"}
WEBSOCKET_ATTRIBUTES = ("conn", "disconnected", "handshake_complete", "handshake_initiated", "tasks", "transport")
WEBSOCKET_METHODS = (
    "connection_lost",
    "data_received",
    "handle_connect",
    "receive",
    "run_asgi",
    "send",
    "shutdown",
    "stop_keepalive",
)


async def app(scope: object, receive: object, send: object) -> None:
    """Unused app."""


@pytest.fixture
def config() -> Config:
    config = Config(app, log_config=None, ws="websockets-sansio")  # type: ignore[arg-type]
    config.load()
    return config


async def test_http_protocol_has_what_we_use(config: Config) -> None:
    protocol = HttpToolsProtocol(config, ServerState(), {})
    assert [name for name in (*HTTP_ATTRIBUTES, *HTTP_METHODS) if not hasattr(protocol, name)] == []


def test_cycle_has_what_we_use_and_uses_of_its_transport_what_we_give_it() -> None:
    source = inspect.getsource(RequestResponseCycle)
    assert [name for name in CYCLE_ATTRIBUTES if f"self.{name}" not in source] == []
    used = {f"transport.{part.split('(')[0]}" for part in source.split("self.transport.")[1:]}
    assert used <= CYCLE_CALLS


async def test_websocket_protocol_has_what_we_use(config: Config) -> None:
    protocol = WebSocketsSansIOProtocol(config, ServerState(), {})
    assert [name for name in (*WEBSOCKET_ATTRIBUTES, *WEBSOCKET_METHODS) if not hasattr(protocol, name)] == []


def test_server_ticks_ten_times_a_second() -> None:
    assert "asyncio.sleep(0.1)" in inspect.getsource(Server.main_loop)
    assert "on_tick" in inspect.getsource(Server.main_loop)


def test_parser_stops_at_an_upgrade_and_says_where() -> None:
    class Protocol:
        urls: list[bytes] = []  # noqa: RUF012  # There is one instance only.

        def on_url(self, url: bytes) -> None:
            self.urls.append(url)

    parser = httptools.HttpRequestParser(Protocol())
    first = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    second = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as stopped:
        parser.feed_data(first + second)
    assert stopped.value.args == (len(first),)
    parser.feed_data(second)
    assert Protocol.urls == [b"/a", b"/b"]


def test_parser_hands_on_what_a_callback_raised() -> None:
    class Refusing:
        def on_headers_complete(self) -> None:
            raise KeyError("x")

    with pytest.raises(httptools.HttpParserError) as stopped:
        httptools.HttpRequestParser(Refusing()).feed_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert isinstance(stopped.value.__context__, KeyError)


def test_websocket_library_takes_an_empty_request() -> None:
    conn = ServerProtocol(logger=logging.getLogger("test"))
    conn.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    assert len(conn.events_received()) == 1
    assert conn.handshake_exc is None
