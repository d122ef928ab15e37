"""The routes the gateway takes over: one prefix, and the path of each redirect URI (design.md section 4)."""

from __future__ import annotations

from collections.abc import Callable

from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.callback import Callback
from akoya_gateway.endpoints.connect import Connect
from akoya_gateway.endpoints.connections import Connections
from akoya_gateway.endpoints.disconnect import Disconnect, Logout
from akoya_gateway.endpoints.request import Visit
from akoya_gateway.errors import UserError
from akoya_gateway.responses.response import Answer, redirect


class MethodNotAllowed(UserError):
    status = 405
    code = "method-not-allowed"
    title = "That cannot be done here"

    def __init__(self, allow: str) -> None:
        super().__init__(f"Use {allow}.")
        self.allow = allow


class Routes:
    def __init__(
        self,
        config: Config,
        connections: Connections,
        connect: Connect,
        callback: Callback,
        disconnect: Disconnect,
        logout: Logout,
        jwks: Callable[[], Answer],
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

    def own(self, path: str) -> bool:
        """Whether the judged path is ours and never reaches the upstream."""
        return path.startswith(self._below) or path in self._callbacks or path == self._prefix

    async def __call__(self, visit: Visit) -> Answer:
        """Raises `GatewayError`; the faces make a page or a problem of it."""
        path = visit.path
        if path in self._callbacks:
            _only(visit, "GET")
            return await self._callback(visit)
        if path == self._prefix:
            return redirect(self._below, 308)
        name, _, rest = path.removeprefix(self._below).partition("/")
        if name == "" and not rest:
            _only(visit, "GET", "HEAD")
            return await self._connections(visit)
        if name == "connect" and rest:
            _only(visit, "GET")
            return await self._connect(visit, rest)
        if name == "disconnect" and rest:
            _only(visit, "POST")
            return await self._disconnect(visit, rest)
        if (name, rest) == ("logout", ""):
            _only(visit, "POST")
            return await self._logout(visit)
        if (name, rest) == ("jwks.json", ""):
            _only(visit, "GET", "HEAD")
            return self._jwks()
        raise UserError("There is no such page.", status=404, code="not-found", title="Not found")


def own_routes(config: Config, path: str) -> str | None:
    """What the gateway itself does at this judged path, in words; None where the path is the app's."""
    for client in config.clients.values():
        if path == client.callback_path:
            return f"the callback of client {client.name}"
    if path != config.prefix and not path.startswith(config.prefix + "/"):
        return None
    name = path.removeprefix(config.prefix).strip("/").partition("/")[0]
    return _WORDS.get(name, "nothing: 404")


_WORDS = {
    "": "the user's connections",
    "connect": "starts an authorization attempt",
    "disconnect": "revokes and forgets (POST)",
    "logout": "ends the browser session (POST)",
    "forward-auth": "decides for another proxy",
    "jwks.json": "public keys of the signed headers",
}


def _only(visit: Visit, *methods: str) -> None:
    if visit.ask.method not in methods:
        raise MethodNotAllowed(", ".join(methods))
