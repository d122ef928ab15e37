"""Calls that the budget has allowed and that are sent too late, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from akoya_gateway.access.request import Headers
from akoya_gateway.config.model import DataApi, Dialect, EncryptionKey, Environment, Intent, Seconds
from akoya_gateway.config.presets import PRODUCTS
from akoya_gateway.data_api.budget import Budget
from akoya_gateway.data_api.call import Call, DataRequest
from akoya_gateway.data_api.entitlements import Entitlements
from akoya_gateway.data_api.request_body import ClientMessages
from akoya_gateway.grants import Grant, GrantState
from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret
from akoya_gateway.store import EncryptedStore
from akoya_gateway.store.encryption import Keyring
from akoya_gateway.store.memory import MemoryStore
from tests.data_api.products_server import ProductsServer

NOW = 1_800_000_000.0
GRANT = Grant(
    GrantKey("own_1", "e", "demo-app", "mikomo", "sub_1"),
    TokenSet(Secret("bearer"), Secret("refresh"), NOW + 900, ("openid",), "sub_1", "consent"),
    GrantState.LIVE,
    NOW,
    NOW,
)


class BusyServices:
    """The services of a call, in a process whose event loop is blocked at first when a call is about to be sent."""

    entitlements = Entitlements(time.time, 60.0)
    grants = cast("GrantManager", None)

    def __init__(self, http: httpx.AsyncClient) -> None:
        store = EncryptedStore(MemoryStore(time.time), Keyring((EncryptionKey("k", bytes(32)),)))
        self._budget = Budget("e", 50.0, store, time.time, lambda: 0.5)
        self._http = http
        self.blocked = 0

    def random(self) -> float:
        return 0.5

    def provider_id(self, connector: str) -> str:
        return connector

    def budget(self, environment: str) -> Budget:
        return self._budget

    def client(self, *, keep_alive: bool) -> httpx.AsyncClient:
        if not self.blocked:
            self.blocked += 1
            time.sleep(0.3)
        return self._http


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield http


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_late_call_acquires_again_and_is_sent_once_with_its_whole_body(
    method: str, http: httpx.AsyncClient
) -> None:
    parts = [b"first ", b"second ", b"third"]
    messages = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with ProductsServer() as server:
        environment = Environment("e", None, "", "", None, None, server.url, Dialect())
        api = DataApi("bank-data", environment, "v3", Intent.NONPAYMENTS, PRODUCTS, Seconds(30.0))
        headers: Headers = [(b"content-length", b"18")] if method == "POST" else []
        request = DataRequest(api, method, "balances", b"", headers, GRANT, "2027-01-01T00:00:00Z", "r")
        services = BusyServices(http)
        call = Call(services, request, ClientMessages(receive, has_body=method == "POST"))
        await call.run(send)
        (received,) = server.received
    assert services.blocked == 1
    assert (received.method, received.body) == (method, b"first second third" if method == "POST" else b"")
    assert (call.attempts, sent[0]["status"]) == (1, 200)
