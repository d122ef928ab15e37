from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from akoya_gateway.config.model import Client, Config, Environment, Tokens, Verify
from akoya_gateway.oauth.outcomes import ProviderDown, TokensIssued
from akoya_gateway.process_environment import ProcessEnvironment
from akoya_gateway.provider import open_providers
from akoya_gateway.secret import Secret
from tests.support.oauth_values import NOW, claims, client, jwks, rsa_key, signed
from tests.support.scripted_server import reply, serve


@dataclass
class Parts:
    """The parts of a `Config` from which providers are built."""

    environments: dict[str, Environment]
    clients: dict[str, Client]
    tokens: Tokens = field(default_factory=Tokens)
    process_environment: ProcessEnvironment = field(default_factory=ProcessEnvironment)


def config(*clients: Client, verify: Verify = Verify.AUTO) -> Config:
    parts = Parts(
        {one.environment.name: one.environment for one in clients},
        {f"{one.name}-{i}": one for i, one in enumerate(clients)},
        Tokens(verify=verify),
    )
    return cast("Config", parts)


GOOD: dict[str, Any] = {"id_token": signed(claims()).reveal(), "refresh_token": "r2"}


async def test_clients_of_one_environment_share_its_keys() -> None:
    async with serve(token=reply(200, GOOD), keys=reply(200, jwks(rsa_key()))) as server:
        app = client(token_endpoint=f"{server.url}/token", jwks_uri=f"{server.url}/keys")
        async with open_providers(config(app, app), lambda: NOW) as providers:
            assert sorted(providers) == ["demo-app-0", "demo-app-1"]
            assert len(providers) == 2
            assert server.received == []
            for provider in providers.values():
                assert isinstance(await provider.refresh(Secret("r1"), claims()["sub"]), TokensIssued)
        assert len(server.to("/keys")) == 1


async def test_never_fetches_no_keys() -> None:
    async with serve(token=reply(200, GOOD), keys=reply(500)) as server:
        app = client(token_endpoint=f"{server.url}/token", jwks_uri=f"{server.url}/keys")
        async with open_providers(config(app, verify=Verify.NEVER), lambda: NOW) as providers:
            assert isinstance(await providers["demo-app-0"].exchange(Secret("c")), TokensIssued)
        assert server.to("/keys") == []


async def test_always_without_a_jwks_uri_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens\.verify is always.*'sandbox'"):
        open_providers(config(client(), verify=Verify.ALWAYS))


async def test_unknown_client_is_a_key_error() -> None:
    async with open_providers(config(client())) as providers:
        with pytest.raises(KeyError):
            providers["other"]


async def test_after_closing_nothing_is_sent_and_nothing_raises() -> None:
    async with serve(token=reply(200, GOOD)) as server:
        app = client(token_endpoint=f"{server.url}/token")
        async with open_providers(config(app), lambda: NOW) as providers:
            pass
        response = await providers["demo-app-0"].refresh(Secret("r1"), "s")
        assert isinstance(response, ProviderDown)
        assert server.received == []
