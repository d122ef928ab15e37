"""Tests of what `akoya_gateway` uses of uvicorn, httptools and websockets beyond their documented API.

If one of these fails after an upgrade, review every use before changing the list.
"""

from __future__ import annotations

import ast
import inspect
import logging
import textwrap
import tomllib
from pathlib import Path

import httptools
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server
from websockets.server import ServerProtocol

from akoya_gateway.fast_lane.uvicorn_protocol import FastLaneProtocol
from akoya_gateway.server.http_protocol import LimitedHttpProtocol
from akoya_gateway.server.lingering_close import RequestTransport
from akoya_gateway.server.uvicorn_api import HTTP_PROTOCOL, TESTED, WEBSOCKET_PROTOCOL, is_tested, missing_names
from akoya_gateway.server.websocket_protocol import DetachableWebSocketProtocol, GuardedWebSocketProtocol

ROOT = Path(__file__).parents[2]

OURS = (LimitedHttpProtocol, FastLaneProtocol, GuardedWebSocketProtocol, DetachableWebSocketProtocol)
UNSET = {"url", "response", "scope"}
"""Attributes that uvicorn sets when a request arrives, as the lists of names say."""


def test_uvicorn_has_the_private_attributes_in_use() -> None:
    assert missing_names() == []


def test_versions_in_the_requirements_are_the_tested_ones() -> None:
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"uvicorn{TESTED}" in requirements


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.52.4", False), ("0.53.0", True), ("0.54.9", True), ("0.54", True), ("0.55.0", False), ("0.55.0rc1", False),
     ("1.0", False), ("next", False)],
)  # fmt: skip
def test_version_outside_the_range_is_not_tested(version: str, expected: bool) -> None:
    assert is_tested(version) is expected


def test_list_names_every_inherited_attribute_that_we_use() -> None:
    for ours in OURS:
        tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        inherited = {node.attr for node in attributes if ast.unparse(node.value) == "super()"} - {"__init__"}
        used = {node.attr for node in attributes if ast.unparse(node.value) == "self"}
        above = {name for each in ours.__mro__[1:] if each in OURS for name in own_names(each)}
        listed = HTTP_PROTOCOL if issubclass(ours, HttpToolsProtocol) else WEBSOCKET_PROTOCOL
        assert used - own_names(ours) - above - UNSET <= set(listed), ours
        assert inherited - above <= set(listed), ours


def own_names(ours: type) -> set[str]:
    """Return the names that the class itself defines: methods, and attributes assigned in `__init__`."""
    init = ast.parse(textwrap.dedent(inspect.getsource(ours.__init__)))  # type: ignore[misc]
    assigned = {
        node.attr for node in ast.walk(init) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return assigned | set(vars(ours))


def test_uvicorn_cycle_uses_only_members_of_the_transport() -> None:
    source = inspect.getsource(RequestResponseCycle)
    assert {part.split("(")[0] for part in source.split("self.transport.")[1:]} <= set(RequestTransport.__slots__)


def test_server_ticks_ten_times_a_second() -> None:
    assert "asyncio.sleep(0.1)" in inspect.getsource(Server.main_loop)
    assert "on_tick" in inspect.getsource(Server.main_loop)


def test_parser_stops_at_an_upgrade_and_returns_the_position() -> None:
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
