"""Tests that no app gets a Host from which its framework would build a URL with another path or host."""

from __future__ import annotations

from tests.support.environment import GatewayEnv
from tests.support.forward_auth import raw

INVALID = [
    ["a/admin?"],
    ["a:80/admin"],
    ["a", "b"],
    ["a", "a"],
    ["a,b"],
    ["a@b"],
    ["a#b"],
    ["a\\b"],
    ["[fe80::1%25eth0]"],
    ["\xc3\xa4"],
]
VALID = [["app.example"], ["app.example."], ["APP.example:8080"], ["[::1]:80"], ["a_b"], []]


HANDSHAKE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {'A' * 22}==",
]


def test_invalid_host_is_refused_on_public_paths_at_every_entry_point(env: GatewayEnv) -> None:
    for hosts in (*INVALID, *VALID):
        lines = [f"Host: {host}" for host in hosts]
        version = "1.1" if hosts else "1.0"
        head = [f"GET /public/received HTTP/{version}", *lines, "Connection: close", "", ""]
        assert raw(env.port, "\r\n".join(head))[0] == (400 if hosts in INVALID else 200), hosts
    for hosts in INVALID:
        head = ["GET /public/received HTTP/1.1", *(f"Host: {host}" for host in hosts), *HANDSHAKE, "", ""]
        assert raw(env.port, "\r\n".join(head))[0] == 400, hosts
