"""The proxies that terminate TLS in front of the sidecar, started with their files from deploy/tls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets import Origin
from websockets.asyncio.client import connect

from akoya_gateway.client_header_names import FROM_PROXIES, MOVES_THE_REQUEST
from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import SandboxClient, SandboxSettings
from akoya_gateway.secret import Secret
from tests.support.certificates import Authority
from tests.support.environment import CLIENT_ID, CLIENT_SECRET, Browser
from tests.support.forward_auth import BehindProxy
from tests.support.ports import free_port
from tests.support.proxies import TLS_PROXIES, Addresses, ProxyMissing, ProxyProcess

SPOOFED = "6.6.6.6"
KNOWN = sorted(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)


class TLSEnv(BehindProxy):
    """A proxy that terminates TLS. The gateway listens on `gateway_port` and trusts 127.0.0.1."""

    def __init__(self, folder: Path, proxy: str) -> None:
        super().__init__(folder)
        authority = Authority(folder)
        self.context = ssl.create_default_context(cafile=str(authority.file))
        self.gateway_port = free_port()
        addresses = Addresses(self.port, self.gateway_port, self.upstream.port, certificate=authority.issue("proxy"))
        self.proxy = ProxyProcess(proxy, folder / "proxy", addresses, tls=True)
        self.url = f"https://127.0.0.1:{self.port}"
        self.redirect_uri = f"{self.url}/akoya/callback"
        self.akoya.stop()
        client = SandboxClient(CLIENT_ID, Secret(CLIENT_SECRET), (self.redirect_uri,))
        self.akoya = SandboxServer(SandboxSettings(clients=(client,)))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "listen": f"127.0.0.1:{self.gateway_port}", "trusted_proxies": ["127.0.0.1"]}

    def browser(self) -> Browser:
        browser = Browser(self)
        browser.http = httpx.Client(base_url=self.url, trust_env=False, timeout=60, verify=self.context)
        return browser


@pytest.fixture(scope="module", params=list(TLS_PROXIES))
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSEnv]:
    try:
        env = TLSEnv(tmp_path_factory.mktemp(request.param), request.param)
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        yield env


def test_bank_is_connected_over_https_and_the_app_knows_the_client(env: TLSEnv) -> None:
    with env.browser() as browser:
        landed = browser.connect(return_to="/accounts")
        assert (landed.status_code, landed.headers["location"]) == (302, "/accounts")
        assert "__Host-akoya=" in landed.headers["set-cookie"]
        assert "Secure" in landed.headers["set-cookie"]
        seen = browser.fetch("/accounts").json()
    headers = dict(seen["headers"])
    assert headers["akoya-connector"] == "mikomo"
    assert seen["signature"].startswith("valid: ")
    assert (
        headers["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"
    )  # the client, and the proxy, which is on the same address
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == f"127.0.0.1:{env.port}"


def test_no_header_of_the_client_is_taken_for_the_proxys(env: TLSEnv) -> None:
    with env.browser() as browser:
        for names in (KNOWN[::3], KNOWN[1::3], KNOWN[2::3], ["X-Forwarded-User", "SCRIPT_NAME", "X_Forwarded_For"]):
            response = browser.fetch("/public/x", headers={"accept": "*/*", **dict.fromkeys(names, SPOOFED)})
            assert response.status_code == 200, response.text
            assert [name for name, value in response.json()["headers"] if SPOOFED in value] == []


async def test_websocket_passes(env: TLSEnv) -> None:
    # Not the client of `websockets.sync`: its two threads use one TLS connection, which OpenSSL does not allow, and it
    # waited for the response to its handshake without end once.
    address = f"wss://127.0.0.1:{env.port}/public/ws"
    async with (
        asyncio.timeout(60),
        connect(address, ssl=env.context, origin=Origin(env.url), proxy=None, open_timeout=30) as socket,
    ):
        await socket.recv()  # The app begins with the headers that it received.
        await socket.send("hello")
        assert "hello" in str(await socket.recv())
