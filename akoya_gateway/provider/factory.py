"""Creates the providers of a configuration and the HTTP client that they share."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import certifi
import httpx

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, Verify
from akoya_gateway.process_environment import ProcessEnvironment, read_process_environment
from akoya_gateway.provider.provider import Provider
from akoya_gateway.provider.remote_keys import RemoteKeySet

_KEYS_TIMEOUT = 5.0


def _ignore(_: str) -> None:
    return


def trust(process_environment: ProcessEnvironment) -> ssl.SSLContext:
    """Return the TLS context for requests to the provider.

    It trusts `SSL_CERT_FILE` and `SSL_CERT_DIR` if either is set, and certifi's list otherwise.
    """
    if process_environment.ca_file is None and process_environment.ca_folder is None:
        return ssl.create_default_context(cafile=certifi.where())
    return ssl.create_default_context(cafile=process_environment.ca_file, capath=process_environment.ca_folder)


def http_client(
    verify: ssl.SSLContext | None = None,
    process_environment: ProcessEnvironment | None = None,
    *,
    keep_alive: bool = False,
) -> httpx.AsyncClient:
    """Return an HTTP client that is safe for tokens; all requests to the provider use it, also those of `doctor`.

    - Certificates are verified, redirects are never followed, nothing is retried.
    - `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE` are honoured, because many data recipients can reach the internet
      only through a proxy. TLS to Akoya passes through the proxy end to end. Plain http, which is allowed for loopback
      addresses only, never uses the proxy, which would see the tokens.
    - Cookies are neither stored nor sent.
    - Connections are not kept alive (see `provider.transport`), unless `keep_alive` is True, for requests that may be
      repeated.
    - httpx and httpcore do not log below WARNING unless their loggers have a level of their own: at DEBUG httpcore logs
      what the peer sent, and a peer can echo a token.

    Args:
        verify: The TLS context, by default `trust(process_environment)`.
        process_environment: The process environment of the configuration, by default that of this process.
        keep_alive: Whether a connection carries several requests.
    """
    for name in ("httpx", "httpcore"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    if process_environment is None:
        process_environment, _, _ = read_process_environment(os.environ)
    verify = verify or trust(process_environment)
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=64 if keep_alive else 0)
    direct = httpx.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)
    proxy = process_environment.proxy
    return httpx.AsyncClient(
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        transport=direct,
        mounts={} if proxy is None else {"https://": _ByProxy(process_environment, verify, limits, direct)},
        timeout=15.0,
        trust_env=False,
    )


class _ByProxy(httpx.AsyncBaseTransport):
    """Sends requests through the proxy, except to the hosts in `NO_PROXY`, whose networks httpx cannot match."""

    def __init__(
        self,
        process_environment: ProcessEnvironment,
        verify: ssl.SSLContext,
        limits: httpx.Limits,
        direct: httpx.AsyncBaseTransport,
    ) -> None:
        assert process_environment.proxy is not None
        proxy = httpx.Proxy(process_environment.proxy.url.reveal())
        self._environment = process_environment
        self._direct = direct
        self._proxied = httpx.AsyncHTTPTransport(verify=verify, limits=limits, proxy=proxy, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxied = self._environment.proxy_for(request.url.host, request.url.port or 443) is not None
        return await (self._proxied if proxied else self._direct).handle_async_request(request)

    async def aclose(self) -> None:
        await self._proxied.aclose()


class Providers(Mapping[str, Provider]):
    """Maps client names to `Provider`s. Close it, or use it as an async context manager."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        sources: Mapping[str, RemoteKeySet],
        http: httpx.AsyncClient,
        on_keys_failure: Callable[[str], None] = _ignore,
    ) -> None:
        self._on_keys_failure = on_keys_failure
        self._providers = dict(providers)
        self._sources = dict(sources)
        self._http = http

    def __getitem__(self, client: str) -> Provider:
        return self._providers[client]

    def __iter__(self) -> Iterator[str]:
        return iter(self._providers)

    def __len__(self) -> int:
        return len(self._providers)

    def keys_of(self, name: str, uri: str, clock: Clock) -> RemoteKeySet:
        """Return the key set of another issuer, fetched with the same HTTP client and closed with the providers.

        `name` is passed to `on_keys_failure`.

        Raises:
            ValueError: As for `RemoteKeySet`.
        """
        on_failure = partial(self._on_keys_failure, name)
        source = RemoteKeySet(uri, self._http, clock, timeout=_KEYS_TIMEOUT, on_failure=on_failure)
        self._sources[f"keys of {uri}"] = source
        return source

    async def close(self) -> None:
        """Cancel key fetches and close the connections. Calls in flight fail as if the network had failed."""
        for source in self._sources.values():
            await source.close()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def open_providers(
    config: Config,
    clock: Clock = time.time,
    http: httpx.AsyncClient | None = None,
    on_keys_failure: Callable[[str], None] = _ignore,
) -> Providers:
    """Return one provider per client of `config`. Makes no request.

    Clients of one environment share its keys. `on_keys_failure` is called with the environment's name after each
    failed fetch of its keys.

    Raises:
        ValueError: `tokens.verify` is `always` and an environment has no `jwks_uri`; or a `jwks_uri` is neither https
            nor on a loopback address.
    """
    http = http or http_client(process_environment=config.process_environment)
    sources: dict[str, RemoteKeySet] = {}
    for environment in config.environments.values():
        if config.tokens.verify is Verify.NEVER:
            continue
        if environment.jwks_uri is not None:
            timeout = min(_KEYS_TIMEOUT, environment.timeout)
            on_failure = partial(on_keys_failure, environment.name)
            sources[environment.name] = RemoteKeySet(
                environment.jwks_uri, http, clock, timeout=timeout, on_failure=on_failure
            )
        elif config.tokens.verify is Verify.ALWAYS:
            raise ValueError(f"tokens.verify is always, but environment {environment.name!r} has no jwks_uri")
    providers = {
        name: Provider(client, http, sources.get(client.environment.name), config.tokens, clock)
        for name, client in config.clients.items()
    }
    return Providers(providers, sources, http, on_keys_failure)
