"""FastAPI: the dependency `current_connection`.

    app = FastAPI()
    add_akoya(app, RemoteKeys("https://app.example.com/akoya/jwks.json"))

    @app.get("/balances")
    def balances(bank: Annotated[Verified, Depends(current_connection("mikomo"))]): ...

Under `akoya_gateway.Gateway`, call `add_akoya(app)` without keys.
"""

# Without `from __future__ import annotations`: FastAPI cannot resolve the annotations of a callable object as text.

import functools
from typing import Any, Literal, overload

from fastapi import FastAPI, HTTPException, WebSocketException
from fastapi.openapi.models import APIKey
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from akoya_verify.asgi import AsgiVerifier
from akoya_verify.connection import ConnectionMissing, connection_of, current
from akoya_verify.keys import KeySource
from akoya_verify.result import Verified

SCHEME = "AkoyaGateway"
RESPONSES = {
    "401": {"description": "No connection to the bank (`not-connected`, `reconnect`). Connect it at `connect_url`."},
    "409": {"description": "The request has another connection (`other-connection`), or several (`ambiguous-grant`)."},
}


class OptionalConnection:
    """The dependency of `current_connection(optional=True)`: the connection, or None."""

    def __init__(self, connector: str | None, prefix: str) -> None:
        self.connector = connector
        self.prefix = prefix

    async def __call__(self, connection: HTTPConnection) -> Verified | None:
        """Return the connection or None. Raises `NotVerified` if nothing has verified the request."""
        try:
            return connection_of(current(connection.scope), self.connector, prefix=self.prefix)
        except ConnectionMissing:
            return None


class RequiredConnection(SecurityBase):
    """The dependency of `current_connection()`. OpenAPI shows it as a security requirement."""

    def __init__(self, connector: str | None, prefix: str) -> None:
        self.connector = connector
        self.prefix = prefix
        self.scheme_name = SCHEME
        text = f"The session of Akoya Gateway. Connect a bank at `{prefix}/`."
        self.model = APIKey.model_validate({"in": "cookie", "name": "__Host-akoya", "description": text})

    async def __call__(self, connection: HTTPConnection) -> Verified:
        """Return the connection.

        Raises:
            HTTPException: The request has none: 401 or 409, with the problem document of `ConnectionMissing`.
            WebSocketException: The same for a WebSocket: code 1008, which is 403 before the handshake.
            NotVerified: Nothing has verified the request.
        """
        try:
            return connection_of(current(connection.scope), self.connector, prefix=self.prefix)
        except ConnectionMissing as missing:
            if connection.scope["type"] == "websocket":
                raise WebSocketException(1008, missing.code) from None
            raise HTTPException(missing.status, missing.problem()) from None


@overload
def current_connection(
    connector: str | None = None, *, optional: Literal[False] = False, prefix: str = "/akoya"
) -> RequiredConnection: ...
@overload
def current_connection(
    connector: str | None = None, *, optional: Literal[True], prefix: str = "/akoya"
) -> OptionalConnection: ...
@functools.cache
def current_connection(
    connector: str | None = None, *, optional: bool = False, prefix: str = "/akoya"
) -> RequiredConnection | OptionalConnection:
    """Return a dependency for `Depends` that provides the `Verified` of a request.

    Equal arguments return the same object, which is the key for `app.dependency_overrides`.

    Args:
        connector: The bank's name in gateway.yaml. None selects the bank whose token the request has.
        optional: Whether the dependency is None without such a connection, instead of a 401 or 409 response.
        prefix: The gateway's `prefix`.
    """
    return OptionalConnection(connector, prefix) if optional else RequiredConnection(connector, prefix)


def add_akoya(app: FastAPI, keys: KeySource | None = None, **options: Any) -> None:
    """Verify requests before they reach `app`, and add the responses 401 and 409 to its OpenAPI document.

    A request without `Akoya-*` headers is passed to the app, whose views use `current_connection`. A request with such
    headers but without a valid signature is refused.

    Args:
        keys: The keys of the gateway in front. None: the app is wrapped in a `Gateway`.
        options: Of `AsgiVerifier`.
    """
    app.add_middleware(AsgiVerifier, keys=keys, **{"required": False, "root_path": app.root_path, **options})
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for operations in document.get("paths", {}).values():
            for operation in operations.values():
                if any(SCHEME in requirement for requirement in operation.get("security", ())):
                    operation["responses"] = {**RESPONSES, **operation["responses"]}
        return document

    vars(app)["openapi"] = openapi  # As `app.openapi = openapi`, which FastAPI documents and mypy refuses.
