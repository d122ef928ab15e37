"""Starlette: a backend for `AuthenticationMiddleware`, and the decorator `requires_connection`.

    app = Starlette(
        routes=[Route("/accounts", accounts)],
        middleware=[
            Middleware(AsgiVerifier, keys=RemoteKeys("https://app.example.com/akoya/jwks.json"), required=False),
            Middleware(AuthenticationMiddleware, backend=AkoyaBackend()),
        ],
    )

Under `akoya_gateway.Gateway` the `AsgiVerifier` is not needed, and does no harm.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from akoya_verify.connection import ConnectionMissing, connection_of, current
from akoya_verify.policy import PROBLEM
from akoya_verify.result import Verified

View = Callable[..., Any]


class ConnectionUser(BaseUser):
    """The owner of a verified request, as `request.user`. `connection` has the token and the banks."""

    def __init__(self, connection: Verified) -> None:
        self.connection = connection

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.connection.owner

    @property
    def identity(self) -> str:
        return self.connection.owner


class AkoyaBackend(AuthenticationBackend):
    """Sets `request.user` to a `ConnectionUser` with the scope `authenticated`, if the request has an owner.

    It does not verify signatures. A request that neither an `AsgiVerifier` nor a `Gateway` has checked fails with
    `NotVerified` (500), because its headers may be forged.
    """

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        verified = current(conn.scope)
        return None if verified is None else (AuthCredentials(["authenticated"]), ConnectionUser(verified))


def requires_connection(connector: str | None = None, *, prefix: str = "/akoya") -> Callable[[View], View]:
    """Run a view only for requests with a connection, which is then in `request.state.akoya`.

    Other requests get a problem document with status 401 or 409 (see `ConnectionMissing`). WebSockets are closed with
    code 1008 before they are accepted, which the client sees as 403.

    Args:
        connector: The bank's name in gateway.yaml. None: any bank.
        prefix: The gateway's `prefix`.
    """

    def decorate(view: View) -> View:
        is_async = inspect.iscoroutinefunction(inspect.unwrap(view))

        @functools.wraps(view)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            request = next(one for one in (*args, *kwargs.values()) if isinstance(one, HTTPConnection))
            try:
                request.state.akoya = connection_of(current(request.scope), connector, prefix=prefix)
            except ConnectionMissing as missing:
                if isinstance(request, WebSocket):
                    return await request.close(1008)
                return Response(missing.body(), missing.status, media_type=PROBLEM)
            return await (view(*args, **kwargs) if is_async else run_in_threadpool(view, *args, **kwargs))

        return checked

    return decorate
