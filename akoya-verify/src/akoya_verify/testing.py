"""Helpers for the tests of an app: requests as a gateway would admit them, without a gateway and without a network.

    alice = connected("mikomo", "alice")
    client = starlette_client(app, alice)   # also for FastAPI
    client = django_client(alice)
    client = flask_client(app, alice)

The clients put a `Verified` where a `Gateway` in the same process does, so the app needs no keys. Test the verification
itself with `signed_headers`, and an app that has the key `TEST_KEY`.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from akoya_verify.asgi import App, Receive, Scope, Send
from akoya_verify.keys import Key, secret_key
from akoya_verify.message_signatures import LABEL, REQUIRED, TAG, authority_of, signature_base
from akoya_verify.result import Connection, Verified
from akoya_verify.structured_fields import (
    BareItem,
    InnerList,
    Item,
    Token,
    serialize_dictionary,
    serialize_inner_list,
)

if TYPE_CHECKING:
    from django.test import AsyncClient, Client
    from flask import Flask
    from flask.testing import FlaskClient
    from starlette.testclient import TestClient

TEST_KEY = secret_key("test", secrets.token_bytes(32))
"""The key of `signed_headers`. Random, so that no app can trust it outside of its own tests."""

LIFETIME = 60


def connected(connector: str | None = "mikomo", owner: str = "test-owner", **claims: Any) -> Verified:
    """Return the `Verified` of a request with one live connection.

    Args:
        connector: The bank's name in gateway.yaml. None: the owner has connected no bank.
        owner: The ID of the user.
        claims: Other attributes of `Verified`. `id_token` is "test-id-token" unless given.
    """
    defaults: dict[str, Any] = {"interaction_type": "user", "last_access": "2026-11-30T12:00:00Z"}
    if connector is not None:
        expires = claims.get("expires", int(time.time()) + 900)
        defaults |= {
            "id_token": "test-id-token",
            "expires": expires,
            "scope": ("openid", "profile", "offline_access"),
            "environment": "sandbox",
            "connections": (Connection(connector, "live", expires, "g_test"),),
            "provider": connector,
            "grant": "g_test",
        }
    return Verified(owner, connector, **{**defaults, **claims})


def signed_headers(
    method: str = "GET",
    url: str = "http://testserver/",
    *,
    key: Key = TEST_KEY,
    now: float | None = None,
    **claims: Any,
) -> dict[str, str]:
    """Return the headers with which a gateway sends a request to the app, including `Host`.

    Args:
        method: The method of the request. The signature covers it, and the URL.
        url: The URL of the request. TestClient and Django's client send to `http://testserver`, Flask's to
            `http://localhost`.
        key: A shared secret, which the app under test must have in its keys.
        now: When the headers are signed, in Unix seconds.
        claims: Of `connected`.

    Raises:
        ValueError: The key is not a shared secret.
    """
    if not isinstance(key.public, bytes):
        raise ValueError("signed_headers needs a shared secret, such as TEST_KEY")
    target = urlsplit(url)
    headers = _claims(connected(**claims))
    created = int(time.time() if now is None else now)
    parameters: dict[str, BareItem] = {
        "created": created,
        "expires": created + LIFETIME,
        "nonce": secrets.token_hex(16),
        "keyid": key.id,
        "alg": key.algorithm,
        "tag": TAG,
    }
    names = (*headers, *REQUIRED)
    covered = InnerList(tuple(Item(name, {}) for name in names), parameters)
    parts = {
        "@method": method,
        "@authority": authority_of(target.netloc, target.scheme),
        "@path": target.path or "/",
        "@query": f"?{target.query}",
    }
    base = signature_base(names, parts, {name: [value] for name, value in headers.items()}, covered)
    return {
        "Host": target.netloc,
        **headers,
        "Signature-Input": f"{LABEL}={serialize_inner_list(covered)}",
        "Signature": serialize_dictionary({LABEL: Item(hmac.digest(key.public, base, "sha256"), {})}),
    }


def _claims(verified: Verified) -> dict[str, str]:
    expires = None if verified.expires is None else str(verified.expires)
    tokens = {connector: Item(token, {}) for connector, token in verified.id_tokens.items()}
    values = {
        "akoya-connector": verified.connector,
        "akoya-id-token": verified.id_token,
        "akoya-expires": expires,
        "akoya-scope": " ".join(verified.scope),
        "akoya-environment": verified.environment,
        "akoya-owner": quote(verified.owner, safe="!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"),
        "akoya-connections": serialize_dictionary(_logins(verified.connections)),
        "akoya-provider": verified.provider,
        "akoya-grant": verified.grant,
        "akoya-consent": verified.consent,
        "akoya-interaction-type": verified.interaction_type,
        "akoya-last-access": verified.last_access,
        "akoya-id-tokens": serialize_dictionary(tokens),
    }
    return {name: value for name, value in values.items() if value}


def _logins(connections: tuple[Connection, ...]) -> Mapping[str, Item | InnerList]:
    found: dict[str, list[Item]] = {}
    for one in connections:
        given = {"expires": one.expires, "id": one.id}
        parameters: dict[str, BareItem] = {name: value for name, value in given.items() if value is not None}
        found.setdefault(one.connector, []).append(Item(Token(one.state), parameters))
    return {name: logins[0] if len(logins) == 1 else InnerList(tuple(logins), {}) for name, logins in found.items()}


def starlette_client(app: App, verified: Verified | None, **options: Any) -> TestClient:
    """Return Starlette's (and FastAPI's) `TestClient` for an app whose requests have `verified` as `scope["akoya"]`.

    Args:
        app: The app, without the `Gateway` around it.
        verified: Such as `connected()`. None: a request without an owner.
        options: Of `TestClient`.
    """
    from starlette.testclient import TestClient  # noqa: PLC0415 - optional

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope if scope["type"] == "lifespan" else {**scope, "akoya": verified}, receive, send)

    return TestClient(wrapped, **options)


def django_client(verified: Verified | None, **options: Any) -> Client:
    """Return Django's test client, whose requests have `verified` as `request.akoya`.

    Args:
        verified: Such as `connected()`. None: a request without an owner, which `IN_PROCESS` admits.
        options: Options of `django.test.Client`.
    """
    from django.test import Client  # noqa: PLC0415 - optional

    return Client(akoya=verified, **options)


def django_async_client(verified: Verified | None, **options: Any) -> AsyncClient:
    """Return Django's asynchronous test client. See `django_client`."""
    from django.test import AsyncClient  # noqa: PLC0415 - optional

    class ConnectedClient(AsyncClient):
        def _base_scope(self, **request: Any) -> Any:
            return super()._base_scope(**request) | {"akoya": verified}

    return ConnectedClient(**options)


def flask_client(app: Flask, verified: Verified | None, **options: Any) -> FlaskClient:
    """Return Flask's test client, whose requests have `verified` as the current connection.

    Args:
        app: The app.
        verified: Such as `connected()`. None: a request without an owner, which an app without keys admits.
        options: Of `app.test_client`.
    """
    client = app.test_client(**options)
    environ: dict[str, Any] = client.environ_base
    environ["akoya"] = verified
    return client
