"""Routes that the gateway serves itself: one prefix and the path of each redirect URI (docs/design.md section 4)."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.callback import CallbackEndpoint
from akoya_gateway.endpoints.connect import ConnectEndpoint
from akoya_gateway.endpoints.connections import ConnectionsEndpoint
from akoya_gateway.endpoints.disconnect import DisconnectEndpoint, LogoutEndpoint
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.responses.response import Response, redirect_response


class MethodNotAllowed(UserError):
    """Raised for a method that the route does not support. `allow` is the value of the `Allow` header."""

    status = 405
    code = "method-not-allowed"
    title = "That cannot be done here"

    def __init__(self, allow: str) -> None:
        super().__init__(f"Use {allow}.")
        self.allow = allow


class Router:
    """Dispatches requests to the endpoints of the gateway's own routes."""

    def __init__(
        self,
        config: Config,
        connections: ConnectionsEndpoint,
        connect: ConnectEndpoint,
        callback: CallbackEndpoint,
        disconnect: DisconnectEndpoint,
        logout: LogoutEndpoint,
        jwks: Callable[[], Response],
    ) -> None:
        self._prefix = config.prefix
        self._below = config.prefix + "/"
        self._callbacks = frozenset(client.callback_path for client in config.clients.values())
        self._connections = connections
        self._connect = connect
        self._callback = callback
        self._disconnect = disconnect
        self._logout = logout
        self._jwks = jwks

    def matches(self, path: str) -> bool:
        """Return whether the gateway serves this normalized path itself, so that it never reaches the upstream."""
        return path.startswith(self._below) or path in self._callbacks or path == self._prefix

    async def __call__(self, request: EndpointRequest) -> Response:
        """Call the endpoint of this path.

        Raises:
            GatewayError: The request failed. The entry points turn it into an HTML page or a problem document.
        """
        path = request.path
        if path in self._callbacks:
            _require_method(request, "GET")
            return await self._callback(request)
        if path == self._prefix:
            return redirect_response(self._below, 308)
        name, _, rest = path.removeprefix(self._below).partition("/")
        if name == "" and not rest:
            _require_method(request, "GET", "HEAD")
            return await self._connections(request)
        if name == "connect" and rest:
            _require_method(request, "GET")
            return await self._connect(request, rest)
        if name == "disconnect" and rest:
            _require_method(request, "POST")
            return await self._disconnect(request, rest)
        if (name, rest) == ("logout", ""):
            _require_method(request, "POST")
            return await self._logout(request)
        if (name, rest) == ("jwks.json", ""):
            _require_method(request, "GET", "HEAD")
            return self._jwks()
        raise UserError("There is no such page.", status=404, code="not-found", title="Not found")


def describe_route(config: Config, path: str) -> str | None:
    """Describe what the gateway does at this normalized path, or return None if the path belongs to the app."""
    for client in config.clients.values():
        if path == client.callback_path:
            return f"the callback of client {client.name}"
    if path != config.prefix and not path.startswith(config.prefix + "/"):
        return None
    name = path.removeprefix(config.prefix).strip("/").partition("/")[0]
    return _DESCRIPTIONS.get(name, "nothing: 404")


_DESCRIPTIONS = {
    "": "the user's connections",
    "connect": "starts an authorization attempt",
    "disconnect": "revokes and forgets (POST)",
    "logout": "ends the browser session (POST)",
    "forward-auth": "decides for another proxy",
    "jwks.json": "public keys of the signed headers",
}


def _require_method(request: EndpointRequest, *methods: str) -> None:
    if request.request.method not in methods:
        raise MethodNotAllowed(", ".join(methods))
