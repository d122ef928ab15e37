"""Configurations of the gateway for the measurements, and sessions created directly in its store."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from akoya_gateway import load_config
from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import ClientMethod, SandboxClient, SandboxConnector, SandboxSettings
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.session_store import KIND as SESSION
from akoya_gateway.sessions.session_store import SessionStore
from akoya_gateway.store import EncryptedStore, open_store
from akoya_gateway.store.encryption import Keyring

CONNECTORS = ("mikomo", *(f"bank-{number:02}" for number in range(2, 21)))
CLIENT_ID, CLIENT_SECRET = "bench-client", "a-client-secret-of-the-emulator"
ENVIRON = {
    "AKOYA_CLIENT_ID": CLIENT_ID,
    "AKOYA_CLIENT_SECRET": CLIENT_SECRET,
    "AKOYA_GATEWAY_KEY": base64.b64encode(bytes(range(7, 231, 7))).decode(),
    "AKOYA_SIGNING_SECRET": "an-hmac-secret-of-more-than-32-bytes-for-benchmarks",
}


def emulator() -> SandboxServer:
    """Return an emulator that also suits the other proxies: access_tokens, and either client authentication."""
    return SandboxServer(
        SandboxSettings(
            clients=(SandboxClient(CLIENT_ID, Secret(CLIENT_SECRET), ("http://127.0.0.1:1/callback",)),),
            connectors=tuple(SandboxConnector(name, name) for name in CONNECTORS),
            code_auth=frozenset(ClientMethod),
            refresh_auth=frozenset(ClientMethod),
            access_token=True,
        )
    )


def document(
    akoya: SandboxServer,
    folder: Path,
    port: int,
    upstream: str | None,
    *,
    algorithm: str = "hmac-sha256",
    scheme: str = "http-message-signatures",
    store: str | None = None,
    trusted: bool = False,
    logged: bool = False,
) -> dict[str, Any]:
    """Return a gateway.yaml.

    If `trusted` is true, loopback may send forward-auth requests. If `logged` is true, logging is as by default. If
    `upstream` is None, the app is in the same process.
    """
    url = f"http://127.0.0.1:{port}"
    akoya.register_redirect_uri(f"{url}/akoya/callback")
    return {
        "version": 1,
        "public_url": url,
        "listen": f"127.0.0.1:{port}",
        "admin": None,
        **({} if upstream is None else {"upstream": {"url": upstream}}),
        "environments": {"emulator": akoya.environment()},
        "clients": {
            "bench": {
                "environment": "emulator",
                "client_id": {"env": "AKOYA_CLIENT_ID"},
                "client_secret": {"env": "AKOYA_CLIENT_SECRET"},
                "redirect_uri": f"{url}/akoya/callback",
                "scopes": ["openid", "profile", "offline_access"],
            }
        },
        "connectors": {name: {"client": "bench", "name": name} for name in CONNECTORS},
        "redirects": {"after_connect": "/bench/small", "allow": ["/bench/*"]},
        "access": [
            {"path": "/public/*", "require": "nothing"},
            {"path": "/api/banks/{connector}/*", "require": "{connector}", "otherwise": "unauthorized"},
            {"path": "/bench/*", "require": "mikomo", "otherwise": "connect"},
        ],
        "sessions": {"store": store or f"sqlite://{folder}/grants.db", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]},
        "signing": {"scheme": scheme, "algorithm": algorithm, "keys": [_key(folder, algorithm)]},
        "limits": {"connects_per_minute": 1000},
        **({} if logged else {"logging": {"access": False, "level": "warning"}}),
        **({"trusted_proxies": ["127.0.0.1/32"], "forward_auth": True} if trusted else {}),
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _key(folder: Path, algorithm: str) -> dict[str, Any]:
    if algorithm == "hmac-sha256":
        return {"id": "k1", "env": "AKOYA_SIGNING_SECRET"}
    folder.mkdir(exist_ok=True)
    path = folder / "signing-key.pem"
    path.touch(0o600)
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"id": "k1", "file": str(path)}


def many_sessions(config: Path, count: int) -> list[str]:
    """Create `count` owners, each with a copy of the grant in the store. Returns their cookie values."""
    return asyncio.run(_many_sessions(config, count))


async def _many_sessions(path: Path, count: int) -> list[str]:
    config = load_config(path, {**os.environ, **ENVIRON})
    store = open_store(config.sessions.store)
    await store.open()
    try:
        encrypted_store = EncryptedStore(store, Keyring(config.sessions.keys))
        repository, sessions = GrantRepository(encrypted_store), SessionStore(encrypted_store, config.sessions.cookie)
        sample = await anext(repository.scan())
        assert await encrypted_store.count(SESSION)

        async def one() -> str:
            session, value = await sessions.start()
            key: GrantKey = replace(sample.key, owner=session.owner)
            assert await repository.write(replace(sample, key=key), after=0)
            return f"{config.sessions.cookie.name}={value}"

        made: list[str] = []
        while len(made) < count:
            made += await asyncio.gather(*(one() for _ in range(min(250, count - len(made)))))
        return made
    finally:
        await store.close()
