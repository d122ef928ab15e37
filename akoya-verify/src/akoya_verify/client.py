"""Clients for tokens and data from the gateway's admin listener, and authentication for httpx.

    tokens = TokenClient("http://127.0.0.1:9090", os.environ["AKOYA_TOKEN_BEARER"])
    token = tokens.get("mikomo", owner)  # raises NeedsReconnect(url)
    balances = tokens.data("mikomo", owner, "balances").json()  # with an upstream that has data_api

    with httpx.Client(base_url=products_url, auth=TokenAuth(tokens, "mikomo", owner)) as akoya:
        akoya.get(f"/balances/v3/{token.provider}")

This module needs httpx (`akoya-verify[client]`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx

from akoya_verify.remote_keys import is_safe_url
from akoya_verify.result import Verified

MAX_ENTRIES = 10_000
TIMEOUT = 30.0
"""Seconds. The gateway may have to refresh the token at the provider first."""

PROBLEM = "urn:akoya-gateway:problem:"
_NO_SEGMENTS = frozenset({"", ".", ".."})
"""Segments that httpx removes from a URL, with or without the one before."""

Parameters = Mapping[str, str] | Sequence[tuple[str, str]]
_Key = tuple[str, str, str | None]


class Unavailable(Exception):
    """The gateway returned no token or data. `retry_after` is in seconds, or None if the response has no `Retry-After`.

    `code` is the gateway's error code, such as `unauthorized` (the bearer token is wrong) or `bank-unavailable`.
    """

    def __init__(self, status: int, code: str, retry_after: float | None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class NeedsReconnect(Unavailable):
    """The owner has to connect the bank, at `url`. `code` is `not-connected` or `reconnect`."""

    def __init__(self, url: str, code: str = "reconnect", status: int = 404) -> None:
        super().__init__(status, code, None)
        self.url = url


class _Tokens:
    """Builds the requests, parses the responses and holds the cache of both clients."""

    def __init__(
        self,
        admin_url: str,
        bearer: str,
        *,
        prefix: str = "/akoya",
        renew_before: float = 30.0,
        allow_plain_http: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Validate the settings.

        Args:
            admin_url: The URL of the admin listener. Must be https, or http on loopback.
            bearer: The value of `admin.token_bearer`.
            prefix: The gateway's `prefix`.
            renew_before: Seconds before its expiry from which a cached token is no longer returned.
            allow_plain_http: Allows http on a trusted network.
            clock: Returns Unix seconds.

        Raises:
            ValueError: The URL is plain http and not loopback.
        """
        if not (allow_plain_http or is_safe_url(admin_url)):
            raise ValueError(f"{admin_url}: the bearer token must be sent over https (or pass allow_plain_http=True)")
        self._url = f"{admin_url.rstrip('/')}{prefix}"
        self._headers = {"Authorization": f"Bearer {bearer}", "Accept": "application/json"}
        self._renew_before = renew_before
        self._clock = clock
        self._cache: dict[_Key, Verified] = {}

    def forget(self, connector: str, owner: str, grant: str | None = None) -> None:
        """Drop a cached token, for example because Akoya has rejected it."""
        self._cache.pop((connector, owner, grant), None)

    def _cached(self, key: _Key) -> Verified | None:
        token = self._cache.get(key)
        return token if token is not None and self._clock() < (token.expires or 0) - self._renew_before else None

    def _request(self, route: str, key: _Key, path: str = "", parameters: Parameters = ()) -> dict[str, Any]:
        connector, owner, grant = key
        if connector in _NO_SEGMENTS:
            raise ValueError(f"{connector!r} is no connector")
        named = [("owner", owner)] if grant is None else [("owner", owner), ("grant", grant)]
        more = parameters.items() if isinstance(parameters, Mapping) else parameters
        url = f"{self._url}/{route}/{quote(connector, safe='')}{path}"
        return {"url": url, "params": [*named, *more], "headers": self._headers}

    def _received(self, key: _Key, response: httpx.Response) -> Verified:
        body = _accepted(response, is_data=False).json()
        scope = tuple(str(body.pop("scope", "")).split())
        known = {name: value for name, value in body.items() if name in Verified.__dataclass_fields__}
        token = Verified(**known, scope=scope)
        if len(self._cache) >= MAX_ENTRIES:
            self._cache.clear()
        self._cache[key] = token
        return token


class TokenClient(_Tokens):
    """Gets tokens, which it caches until they expire, and data. Thread-safe. A context manager."""

    def __init__(self, admin_url: str, bearer: str, *, http: httpx.Client | None = None, **options: Any) -> None:
        """Create the client. `http` replaces the HTTP client. The other arguments are those of `_Tokens`."""
        super().__init__(admin_url, bearer, **options)
        self._http = http or httpx.Client(timeout=TIMEOUT, trust_env=False)

    def get(self, connector: str, owner: str, grant: str | None = None) -> Verified:
        """Return the owner's token for a bank and its claims: `id_token`, `expires`, `provider`, `last_access` ...

        Args:
            connector: The bank's name in gateway.yaml.
            owner: The value of `Akoya-Owner` (`Verified.owner`).
            grant: One of several logins (`Verified.grant`). None: the one connected last.

        Raises:
            ValueError: `connector` is empty, `.` or `..`.
            NeedsReconnect: The owner has to connect the bank.
            Unavailable: The gateway returned no token for another reason.
            httpx.TransportError: The gateway cannot be reached.
        """
        key = (connector, owner, grant)
        return self._cached(key) or self._received(key, self._http.get(**self._request("token", key)))

    def data(
        self, connector: str, owner: str, path: str, parameters: Parameters = (), *, grant: str | None = None
    ) -> httpx.Response:
        """Call a data API through the gateway, which adds the token and respects Akoya's rate limit.

        Requires an upstream with `data_api` in gateway.yaml.

        Args:
            connector: The bank's name in gateway.yaml.
            owner: The value of `Akoya-Owner`.
            path: The product and what follows, such as `balances` or `transactions/123`.
            parameters: The parameters of the query.
            grant: One of several logins.

        Returns:
            Akoya's response, which may be an error from Akoya.

        Raises:
            ValueError: `connector` is, or `path` has, an empty segment, `.` or `..`, which could lead to the route of
                tokens.
            NeedsReconnect: The owner has to connect the bank.
            Unavailable: The gateway did not get a response, or refused the call.
            httpx.TransportError: The gateway cannot be reached.
        """
        request = self._request("data", (connector, owner, grant), _below(path), parameters)
        return _accepted(self._http.get(**request), is_data=True)

    def close(self) -> None:
        """Close the HTTP client."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTokenClient(_Tokens):
    """The same as `TokenClient`, for asyncio."""

    def __init__(self, admin_url: str, bearer: str, *, http: httpx.AsyncClient | None = None, **options: Any) -> None:
        """Create the client. See `TokenClient`."""
        super().__init__(admin_url, bearer, **options)
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)

    async def get(self, connector: str, owner: str, grant: str | None = None) -> Verified:
        """Return the owner's token for a bank. See `TokenClient.get`."""
        key = (connector, owner, grant)
        return self._cached(key) or self._received(key, await self._http.get(**self._request("token", key)))

    async def data(
        self, connector: str, owner: str, path: str, parameters: Parameters = (), *, grant: str | None = None
    ) -> httpx.Response:
        """Call a data API through the gateway. See `TokenClient.data`."""
        request = self._request("data", (connector, owner, grant), _below(path), parameters)
        return _accepted(await self._http.get(**request), is_data=True)

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class TokenAuth(httpx.Auth):
    """Adds a token, and the context headers of Akoya's v3 data APIs, to the requests of an httpx client.

    If Akoya rejects the token of a GET or HEAD request with 401 and the gateway then has a newer one, the request is
    retried once. Raises what `TokenClient.get` raises.
    """

    def __init__(
        self,
        tokens: TokenClient | AsyncTokenClient,
        connector: str,
        owner: str,
        grant: str | None = None,
        *,
        intent: str = "nonpayments",
    ) -> None:
        """Choose the connection, as for `TokenClient.get`. `intent` is the value of `x-akoya-intent-type`."""
        self._tokens = tokens
        self._chosen = (connector, owner, grant)
        self._intent = intent

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with a token. The client is a `TokenClient`."""
        if not isinstance(self._tokens, TokenClient):
            raise TypeError("httpx.Client needs a TokenClient")
        token = self._tokens.get(*self._chosen)
        response = yield self._with(request, token)
        if _may_be_repeated(request, response):
            self._tokens.forget(*self._chosen)
            newer = self._tokens.get(*self._chosen)
            if newer.id_token != token.id_token:
                yield self._with(request, newer)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request with a token. The client is an `AsyncTokenClient`."""
        if not isinstance(self._tokens, AsyncTokenClient):
            raise TypeError("httpx.AsyncClient needs an AsyncTokenClient")
        token = await self._tokens.get(*self._chosen)
        response = yield self._with(request, token)
        if _may_be_repeated(request, response):
            self._tokens.forget(*self._chosen)
            newer = await self._tokens.get(*self._chosen)
            if newer.id_token != token.id_token:
                yield self._with(request, newer)

    def _with(self, request: httpx.Request, token: Verified) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token.id_token}"
        request.headers["x-akoya-interaction-type"] = token.interaction_type or "batch"
        request.headers["x-akoya-intent-type"] = self._intent
        if token.last_access is not None:
            request.headers["x-akoya-last-access"] = token.last_access
        return request


def _below(path: str) -> str:
    """Return the path of a product with a leading slash, percent-encoded. Raises ValueError."""
    if not _NO_SEGMENTS.isdisjoint(path.split("/")):
        raise ValueError(f"{path!r} is not the path of a product, such as balances or transactions/123")
    return "/" + quote(path)


def _accepted(response: httpx.Response, *, is_data: bool) -> httpx.Response:
    """Return the response unless it is one of the gateway's own errors. Raises `NeedsReconnect` and `Unavailable`."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        # The gateway passes no problem document of a bank on as such.
        body = response.json() if media_type == "application/problem+json" else {}
    except ValueError:
        body = {}
    _, is_own, code = str(body.get("type", "") if isinstance(body, dict) else "").partition(PROBLEM)
    if response.status_code == 200 or (is_data and not is_own):
        return response
    if is_own and "connect_url" in body:
        raise NeedsReconnect(body["connect_url"], code, response.status_code)
    retry_after = response.headers.get("retry-after", "")
    seconds = float(retry_after) if retry_after.isdigit() else None
    raise Unavailable(response.status_code, code or "no-problem-document", seconds)


def _may_be_repeated(request: httpx.Request, response: httpx.Response) -> bool:
    return response.status_code == 401 and request.method in {"GET", "HEAD"}
