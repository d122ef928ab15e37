"""Routes that the gateway serves itself: one prefix and the path of each redirect URI (docs/design.md section 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import starlette.routing
from starlette.types import Receive, Scope, Send

from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.callback import CallbackEndpoint
from akoya_gateway.endpoints.connect import ConnectEndpoint
from akoya_gateway.endpoints.connections import ConnectionsEndpoint
from akoya_gateway.endpoints.disconnect import DisconnectEndpoint, LogoutEndpoint
from akoya_gateway.endpoints.jwks import JwksEndpoint
from akoya_gateway.endpoints.other_login import ROUTE, OtherLoginEndpoint
from akoya_gateway.endpoints.rename import RenameEndpoint
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import MethodNotAllowed, UserError
from akoya_gateway.responses.response import Response, redirect_response


class Route(starlette.routing.Route):
    """A route to an endpoint that gets an `EndpointRequest` and returns a `Response`.

    Unlike in Starlette, GET does not include HEAD: a HEAD request must not begin or complete an attempt.
    """

    def __init__(self, path: str, endpoint: Callable[[EndpointRequest], Awaitable[Response]], *methods: str) -> None:
        """Create the route. Without `methods` it accepts all."""
        super().__init__(path, endpoint)
        self._respond = endpoint
        self._allowed = methods
        self.methods = None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the endpoint's response. Raises `GatewayError`, before anything is sent."""
        if self._allowed and scope["method"] not in self._allowed:
            raise MethodNotAllowed(", ".join(self._allowed))
        response = await self._respond(EndpointRequest(scope, receive))
        await response(scope, receive, send)


class Router(starlette.routing.Router):
    """An ASGI app for the gateway's own routes. Takes the scope that `EndpointRequest.scope_of` returns.

    Raises `GatewayError` for a request that fails, before anything is sent.
    """

    def __init__(
        self,
        config: Config,
        connections: ConnectionsEndpoint,
        connect: ConnectEndpoint,
        callback: CallbackEndpoint,
        disconnect: DisconnectEndpoint,
        other_login: OtherLoginEndpoint,
        rename: RenameEndpoint,
        logout: LogoutEndpoint,
        jwks: JwksEndpoint,
    ) -> None:
        prefix = config.prefix
        self._prefix = prefix
        self._below = f"{prefix}/"
        self._callbacks = frozenset(client.callback_path for client in config.clients.values())

        async def redirect(_: EndpointRequest) -> Response:
            return redirect_response(self._below, 308)

        routes = [
            *(Route(path, callback, "GET") for path in self._callbacks),
            Route(prefix, redirect),
            Route(f"{prefix}/", connections, "GET", "HEAD"),
            Route(f"{prefix}/connect/{{connector}}", connect, "GET"),
            Route(f"{prefix}/disconnect/{{connector}}", disconnect, "GET", "HEAD", "POST"),
            Route(f"{prefix}/{ROUTE}/{{connector}}", other_login, "GET", "HEAD", "POST"),
            Route(f"{prefix}/rename/{{connector}}", rename, "POST"),
            Route(f"{prefix}/logout", logout, "GET", "HEAD", "POST"),
            Route(f"{prefix}/jwks.json", jwks, "GET", "HEAD"),
        ]
        super().__init__(routes, redirect_slashes=False, default=_not_found)

    def matches(self, path: str) -> bool:
        """Return whether the gateway serves this normalized path itself, so that it never reaches the upstream."""
        return path.startswith(self._below) or path in self._callbacks or path == self._prefix


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
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
    "disconnect": "asks (GET), then revokes and forgets (POST)",
    "other-login": "asks whether to end an earlier login",
    "rename": "names a login (POST)",
    "logout": "asks (GET), then ends the browser session (POST)",
    "forward-auth": "decides for another proxy",
    "jwks.json": "public keys of the signed headers",
}
