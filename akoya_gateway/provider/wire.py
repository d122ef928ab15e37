"""One HTTP request to the provider, sent at most once, and the truth about whether it left.

A refresh token is dead once it is used, so after a failure only one thing matters: can the provider have read it?

- Not sent: no connection was made (`ConnectError`, `ConnectTimeout`, a refusing proxy), no free place in the pool
  (`PoolTimeout`), or the deadline ran out while we were still connecting.
- Everything else counts as sent, also what we cannot explain.

Connections are not reused (`Connection: close`): a server may close an idle connection at the very moment we write to
it, and then nobody can know whether the request was read. That costs a handshake a refresh, and saves grants.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx

from akoya_gateway.protocol.requests import FormRequest
from akoya_gateway.protocol.tokens import MAX_BODY, HttpAnswer

_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "akoya-gateway"}
_NEVER_LEFT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing left this machine that the provider could act upon."""

    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The request left, or may have, and no complete answer came back."""

    detail: str


class _Unusable(Exception):
    """The body cannot be read to its end; the text says why."""


class _Progress:
    """httpcore's trace: how far the request came."""

    def __init__(self) -> None:
        self.connecting = False
        self.sending = False
        self.status: int | None = None
        self.retry_after: str | None = None
        self.answer: HttpAnswer | None = None
        """All of it has come."""

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.startswith("connection."):
            self.connecting = True
        elif ".send_request_" in event:
            self.sending = True

    def lost(self, detail: str) -> HttpAnswer | Lost:
        """A status that speaks for itself (429, 5xx, a redirect) counts even when its body got lost; a whole answer,
        which may hold the one living refresh token, when the connection could not be closed after it."""
        if self.answer is not None:
            return self.answer
        if self.status is not None and (
            self.status in (408, 425, 429) or self.status >= 500 or 300 <= self.status < 400
        ):
            return HttpAnswer(self.status, b"", self.retry_after)
        return Lost(detail)


async def post(http: httpx.AsyncClient, request: FormRequest, timeout: float) -> HttpAnswer | NotSent | Lost:
    """Send the form once and read the answer, all within `timeout` seconds. Redirects are answers, not followed.

    A body of more than `MAX_BODY` bytes, decoded, comes back cut to one byte more. Raises nothing but cancellation,
    after which the outcome is as unknown as after `Lost`.
    """
    if http.is_closed:
        return NotSent("the gateway is shutting down")
    progress = _Progress()
    try:
        async with (
            asyncio.timeout(timeout),
            _response(http, _form_post(http, request), timeout, progress) as response,
        ):
            progress.status = response.status_code
            progress.retry_after = response.headers.get("retry-after")
            body = await read_body(response, MAX_BODY)
            progress.answer = HttpAnswer(response.status_code, body, progress.retry_after)
        return progress.answer
    except _NEVER_LEFT as fault:
        return NotSent(f"no connection to the provider ({type(fault).__name__})")
    except TimeoutError:
        if progress.connecting and not progress.sending:
            return NotSent(f"no connection to the provider within {timeout:g} s")
        return progress.lost(f"no complete answer within {timeout:g} s")
    except _Unusable as fault:
        return progress.lost(str(fault))
    except Exception as fault:
        # Whatever it was, it must not be taken for "nothing happened". The text of the fault may quote the peer.
        return progress.lost(f"the connection failed ({type(fault).__name__})")


@dataclass(frozen=True, slots=True)
class Document:
    """The body of a 200 and its `Cache-Control`."""

    body: bytes
    cache_control: str


class FetchFailed(Exception):
    """A document could not be had. The text is ours."""


async def get(http: httpx.AsyncClient, url: str, limit: int, timeout: float) -> Document:
    """GET a public document of at most `limit` bytes within `timeout` seconds. Raises `FetchFailed` only."""
    headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
    try:
        async with (
            asyncio.timeout(timeout),
            _response(http, http.build_request("GET", url, headers=headers), timeout, _Progress()) as response,
        ):
            if response.status_code != 200:
                raise FetchFailed(f"answered {response.status_code}")
            body = await read_body(response, limit)
            if len(body) > limit:
                raise FetchFailed(f"answered more than {limit} bytes")
            return Document(body, response.headers.get("cache-control", ""))
    except FetchFailed:
        raise
    except TimeoutError:
        raise FetchFailed(f"no complete answer within {timeout:g} s") from None
    except _Unusable as fault:
        raise FetchFailed(str(fault)) from None
    except Exception as fault:
        raise FetchFailed(f"the connection failed ({type(fault).__name__})") from None


def _form_post(http: httpx.AsyncClient, request: FormRequest) -> httpx.Request:
    return http.build_request("POST", request.url, headers=request.headers, content=request.body)


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """Read until the end, but never hold more than `limit` + 1 decoded bytes; raises `_Unusable` and httpx's errors.

    We ask for `identity`. A server that compresses all the same is read, under the same limit: a rotated refresh token
    is worth more than a point of order.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise _Unusable("the answer has a Content-Encoding that was not asked for")
    inflate = zlib.decompressobj(wbits=47) if encoding not in ("identity", "") else None
    body = bytearray()
    # Not `aiter_raw`, which closes the response at its end: what goes wrong then would take the body with it.
    stream = cast("httpx.AsyncByteStream", response.stream)
    async for chunk in stream:
        try:
            body += inflate.decompress(chunk, limit + 1 - len(body)) if inflate else chunk
        except zlib.error:
            raise _Unusable("the answer's Content-Encoding is broken") from None
        if len(body) > limit:
            return bytes(body[: limit + 1])
        if inflate is not None and inflate.eof:
            break  # zlib would hoard what follows
    if inflate is not None and not inflate.eof:
        raise _Unusable("the answer's Content-Encoding is cut off")
    return bytes(body)


@asynccontextmanager
async def _response(
    http: httpx.AsyncClient, request: httpx.Request, timeout: float, progress: _Progress
) -> AsyncIterator[httpx.Response]:
    """The response to one request, its body not yet read."""
    request.headers.update(_HEADERS)
    request.extensions["timeout"] = httpx.Timeout(timeout, pool=timeout / 2).as_dict()
    request.extensions["trace"] = progress
    response = await http.send(request, stream=True, follow_redirects=False)
    try:
        yield response
    finally:
        # Shielded: a close that is cancelled costs httpcore's pool a place for good.
        await asyncio.shield(response.aclose())
