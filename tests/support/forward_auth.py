"""The usual test environment with a forward-auth proxy in front of the gateway."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from tests.support.environment import Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.proxies import Addresses, ProxyProcess


class BehindProxy(GatewayEnv):
    """A gateway behind a proxy: `url` and `port` are the proxy's. Starts and stops both."""

    gateway_port: int
    proxy: ProxyProcess

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.proxy.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.stop()
        super().__exit__()


class ProxiedEnv(BehindProxy):
    """A proxy that uses the gateway for forward-auth. The gateway listens on `gateway_port` and trusts 127.0.0.1."""

    def __init__(
        self, folder: Path, proxy: str, proxy_changes: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> None:
        super().__init__(folder, **options)
        self.kind = proxy
        self.gateway_port = free_port()
        addresses = Addresses(self.port, self.gateway_port, self.upstream.port, proxy_changes)
        self.proxy = ProxyProcess(proxy, folder / "proxy", addresses)

    def config(self) -> dict[str, Any]:
        config = super().config()
        # The gateway has no upstream: the proxy forwards requests to the app itself.
        del config["upstream"]
        return {
            **config,
            "listen": f"127.0.0.1:{self.gateway_port}",
            "trusted_proxies": ["127.0.0.1/32"],
            **self._changes,
        }


def cookies(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())


def raw(port: int, head: str, *, timeout: float = 10) -> tuple[int, bytes]:
    """Send exactly these bytes and return status and body. Status 0: the connection was closed without a response."""
    response = b""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(head.encode("latin-1"))
        try:
            while chunk := connection.recv(65536):
                response += chunk
        except (TimeoutError, ConnectionResetError):
            pass
    head_bytes, _, body = response.partition(b"\r\n\r\n")
    if not head_bytes.startswith(b"HTTP/"):
        return 0, b""
    if b"transfer-encoding: chunked" in head_bytes.lower():
        body = unchunked(body)
    return int(head_bytes.split(b" ", 2)[1]), body


def unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        whole += body[:length]
        body = body[length + 2 :]
    return whole


def get(port: int, target: str, *lines: str, host: str | None = None, method: str = "GET") -> tuple[int, Any]:
    """Send exactly this target and these header lines; return the status and the body (parsed if JSON)."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", "Connection: close", *lines, "", ""]
    status, body = raw(port, "\r\n".join(head))
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body
