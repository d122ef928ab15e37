"""Flask: the extension `Akoya` and the function `current_connection`.

    app = Flask(__name__)
    Akoya(app, RemoteKeys("https://app.example.com/akoya/jwks.json"), exempt={"/healthz", "/static/*"})

    @app.get("/balances")
    def balances():
        bank = current_connection("mikomo")

Behind `akoya_gateway.Gateway`, which is ASGI, wrap the app with a2wsgi, and omit the keys.
"""

from __future__ import annotations

from typing import Any, Literal, overload

from flask import Flask, Response, abort, current_app, request

from akoya_verify.connection import ConnectionMissing, connection_of, current
from akoya_verify.keys import KeySource
from akoya_verify.policy import PROBLEM
from akoya_verify.result import Verified
from akoya_verify.wsgi import WsgiVerifier


class Akoya:
    """A Flask extension that verifies every request before it reaches the app.

    Requests that cannot be verified get 401, or 503 if neither keys nor a gateway in the same process exist.
    """

    def __init__(
        self, app: Flask | None = None, keys: KeySource | None = None, *, prefix: str = "/akoya", **options: Any
    ) -> None:
        """Configure the extension.

        Args:
            app: As `init_app`.
            keys: The keys of the gateway in front. None: the app is wrapped in a `Gateway`.
            prefix: The gateway's `prefix`.
            options: Of `WsgiVerifier`, such as `exempt`.
        """
        self._keys = keys
        self._options = options
        self.prefix = prefix
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap `app`."""
        app.extensions["akoya"] = self
        # As `app.wsgi_app = ...`, which Flask documents and mypy refuses.
        vars(app)["wsgi_app"] = WsgiVerifier(app.wsgi_app, self._keys, **self._options)


@overload
def current_connection(connector: str | None = None, *, optional: Literal[False] = False) -> Verified: ...
@overload
def current_connection(connector: str | None = None, *, optional: Literal[True]) -> Verified | None: ...
def current_connection(connector: str | None = None, *, optional: bool = False) -> Verified | None:
    """Return the connection of the current request.

    Without a connection, abort the request with a problem document and status 401 or 409 (see `ConnectionMissing`), or
    return None if `optional`.

    Args:
        connector: The bank's name in gateway.yaml. None selects the bank whose token the request has.
        optional: Whether the view runs without a connection.

    Raises:
        NotVerified: Nothing has verified the request, because the app has no extension `Akoya`.
    """
    extension = current_app.extensions.get("akoya")
    prefix = extension.prefix if extension else "/akoya"
    try:
        return connection_of(current(request.environ), connector, prefix=prefix)
    except ConnectionMissing as missing:
        return None if optional else abort(Response(missing.body(), missing.status, content_type=PROBLEM))
