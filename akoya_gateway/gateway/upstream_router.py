"""Routes requests of the sidecar to the reverse proxy of their upstream, and replaces proxies on reload."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from starlette.types import Receive, Scope, Send

from akoya_gateway.admission.request_headers import client_headers_of
from akoya_gateway.config.model import Config, Upstream
from akoya_gateway.errors import UserError
from akoya_gateway.gateway.response_policy import ResponsePolicy
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.reverse_proxy import ReverseProxy

Proxies = Mapping[str, ReverseProxy]
"""Reverse proxies by upstream name (`config.model.Upstream.name`)."""

_SHARED = ("trusted_proxies", "public_url", "allow_underscore_headers", "allow_client_headers", "identity")
"""Configuration keys that every proxy depends on. A change of one replaces all proxies."""


class UpstreamRouter:
    """ASGI app that forwards to the proxy of `scope["akoya.upstream"]` (an `Upstream`).

    Holds the proxies of the active configuration.
    """

    def __init__(self, config: Config, metrics: Metrics | None = None) -> None:
        self._config = config
        self._metrics = metrics
        self._proxies: Proxies = {each.name: _proxy(config, each) for each in config.all_upstreams}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the awaitable of the proxy. Not a coroutine itself, which saves one for each request."""
        kind = scope["type"]
        if kind == "lifespan":
            return self._lifespan(receive, send)
        proxy = self._proxies[scope["akoya.upstream"].name]
        if kind == "http":
            return proxy.forward(scope, receive, send)
        return self._websocket(proxy, scope, receive, send)

    async def _websocket(self, proxy: ReverseProxy, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self._metrics
        if metrics is None:
            await proxy(scope, receive, send)
            return
        metrics.websocket_opened()
        try:
            await proxy(scope, receive, send)
        finally:
            metrics.websocket_closed()

    def current_proxies(self) -> Proxies:
        """Return the active proxies. The object is another one after every `switch`."""
        return self._proxies

    @property
    def pools(self) -> list[ConnectionPool]:
        """The connection pools of the upstreams in the active configuration."""
        return [self._proxies[each.name].pool for each in self._config.all_upstreams]

    @property
    def max_message(self) -> int:
        """Size in bytes of the largest WebSocket message that any upstream accepts.

        Each proxy also applies the limit of its own upstream.
        """
        return max(each.websocket.max_message for each in self._config.all_upstreams)

    def build_proxies(self, config: Config) -> Proxies:
        """Return new proxies for the upstreams that a switch to `config` would change.

        Upstreams with TLS files always get a new one. Raises OSError or ssl.SSLError for invalid TLS files.
        """
        before = self._config
        unchanged = before.all_upstreams if _shared(config) == _shared(before) else ()
        return {
            each.name: _proxy(config, each)
            for each in config.all_upstreams
            if each not in unchanged or _has_tls_files(each)
        }

    def switch(self, config: Config, fresh: Proxies) -> None:
        """Activate a configuration and the proxies that `build_proxies` returned for it.

        Requests and streams in progress finish on the old pools, however long they take. An upstream that was removed
        keeps its proxy: a request admitted just before may still be on its way to it.
        """
        names = {each.name for each in config.all_upstreams}
        for name, proxy in self._proxies.items():
            if name in fresh or name not in names:
                proxy.pool.retire()
        self._config = config
        self._proxies = {**self._proxies, **fresh}

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Handle ASGI lifespan events, for servers other than the sidecar's own."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def close(self) -> None:
        """Close the connection pools of all proxies."""
        for proxy in self._proxies.values():
            await proxy.pool.close()


async def no_upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI app for a gateway without upstreams, which only serves forward-auth. Raises `UserError` (404)."""
    raise UserError("This gateway has no upstream.", status=404, code="no-upstream", title="Not found")


def _shared(config: Config) -> list[object]:
    return [config.sessions.cookie.name, *(getattr(config, part) for part in _SHARED)]


def _proxy(config: Config, upstream: Upstream) -> ReverseProxy:
    return ReverseProxy(
        ConnectionPool(upstream, hides=ResponsePolicy(config.sessions.cookie).hides),
        trusted_proxies=config.trusted_proxies,
        public_url=config.public_url,
        client_headers=client_headers_of(config),
    )


def _has_tls_files(upstream: Upstream) -> bool:
    """Return True if the upstream uses TLS files, whose content may change under the same name."""
    tls = upstream.tls
    return any((tls.ca, tls.certificate, tls.key))
