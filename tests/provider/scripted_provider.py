"""A provider whose endpoints send what a test specifies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from akoya_gateway.config.model import Dialect, Seconds, Tokens
from akoya_gateway.provider import Provider, RemoteKeySet
from akoya_gateway.secret import Secret
from tests.support.oauth_values import NOW, claims, client, jwks, rsa_key, signed
from tests.support.scripted_server import Responder, Server, reply, serve

SUB = "CghtaWtvbW9fMRIGbWlrb21v"


def tokens(id_token: Secret | None = None, **changes: Any) -> dict[str, Any]:
    members = {
        "id_token": (id_token or signed(claims())).reveal(),
        "refresh_token": "refresh-2",
        "token_type": "bearer",
        "expires_in": 600,
        "scope": "openid offline_access",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


@asynccontextmanager
async def provider(
    http: httpx.AsyncClient,
    *,
    keys: Responder | None = None,
    verify: bool = True,
    timeout: float = 30.0,
    dialect: Dialect | None = None,
    **answers: Responder,
) -> AsyncIterator[tuple[Provider, Server]]:
    async with serve(keys=keys or reply(200, jwks(rsa_key())), **answers) as server:
        app = client(
            token_endpoint=f"{server.url}/token",
            revocation_endpoint=f"{server.url}/revoke",
            jwks_uri=f"{server.url}/keys",
            timeout=Seconds(timeout),
            dialect=dialect or Dialect(),
        )
        source = RemoteKeySet(f"{server.url}/keys", http, lambda: NOW, timeout=30) if verify else None
        yield Provider(app, http, source, Tokens(), lambda: NOW), server
