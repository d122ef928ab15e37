"""Sends a request to the provider at most once and reports whether the provider may have received it.

A refresh token is dead once it has been used, so after a failure the question is whether the provider may have received
the request.

- Not sent: no connection was made (`ConnectError`, `ConnectTimeout`, a proxy that refused or did not open the tunnel),
  no connection was available in the pool (`PoolTimeout`), or the deadline passed while connecting.
- Every other failure counts as sent, including unknown ones.

Connections are not reused (`Connection: close`). A server may close an idle connection while the request is being
written, and then it cannot be known whether the request was read. This costs a handshake per refresh and avoids losing
grants.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx

from akoya_gateway.deadline import finishes_within, within
from akoya_gateway.oauth.client_authentication import FormRequest
from akoya_gateway.oauth.outcomes import DownReason
from akoya_gateway.oauth.response_body import UnreadableBody, plain_body
from akoya_gateway.oauth.token_messages import MAX_BODY_BYTES, HttpResponse
from akoya_gateway.oauth.untrusted_text import printable
from akoya_gateway.tasks import cancel_until_done

_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "akoya-gateway"}
_NEVER_LEFT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


_CONNECTED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
"""Trace events of httpcore whose `return_value` is a network stream. A prefix says whether a proxy is involved."""
_HEAD = re.compile(rb"\s*HTTP/\d(?:\.\d)? (\d{3})\b.*?\r?\n\r?\n", re.DOTALL | re.IGNORECASE)
_ENCODING = re.compile(rb"\n(?:content|transfer)-encoding *:([^\r\n]*)", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NotSent:
    """The provider cannot have received the request."""

    detail: str
    reason: DownReason = field(default=DownReason.UNREACHABLE, compare=False)


@dataclass(frozen=True, slots=True)
class ResponseLost:
    """The request was sent, or may have been, and no complete response was received.

    `part` is the received part of the response, if its head was complete and some of the body was received. The end of
    a JSON object can be recognized, so the part may contain everything that is needed.

    `late` continues to read the response, if `post` was asked to and the request timed out.
    """

    detail: str
    part: HttpResponse | None = field(default=None, compare=False)
    late: asyncio.Task[HttpResponse | NotSent | ResponseLost] | None = field(default=None, compare=False, repr=False)


class _NotAllowed(Exception):
    """`may_send` returned False, so the request was not sent."""


class _Progress:
    """Progress of the request and the response; also the trace callback of httpcore.

    It keeps the bytes that were received. A response that is not valid HTTP, such as one with two Transfer-Encoding
    lines, may contain the only valid refresh token as well.
    """

    def __init__(self, limit: int, may_send: Callable[[], bool] | None = None) -> None:
        self._may_send = may_send
        self.connecting = False
        self.sending = False
        self.response: httpx.Response | None = None
        self.whole = False
        """The complete response has been received."""
        self._limit = limit
        self._raw = bytearray()
        self._received = bytearray()

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            self._record(info["return_value"])
        elif event.startswith("connection."):
            self.connecting = True
        elif ".send_request_" in event and event.endswith(".started"):
            if self.sending or info["request"].method == b"CONNECT":
                return
            if self._may_send is not None and not self._may_send():
                raise _NotAllowed
            self.sending = True

    def _record(self, stream: Any) -> None:
        """Keep what is read from the network stream, up to twice the limit.

        Only the data of the last stream is kept: the stream with TLS, if there is one.
        """
        self._received, read = bytearray(), stream.read

        async def recorded(max_bytes: int, timeout: float | None = None) -> bytes:
            data: bytes = await read(max_bytes, timeout)
            if len(self._received) < 2 * self._limit:
                self._received += data
            return data

        stream.read = recorded

    async def read(self, response: httpx.Response) -> None:
        """Read the body to its end, or until more than `limit` bytes have been received."""
        self.response = response
        # Not `aiter_raw`, which closes the response at its end: an error in closing would lose the body.
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            self._raw += chunk
            if len(self._raw) > self._limit:
                break
        self.whole = True

    @property
    def status(self) -> int | None:
        return None if self.response is None else self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.response is None else self.response.headers

    def body(self) -> bytes:
        """Return the received part of the body, decoded by `plain_body`. Raises `UnreadableBody`."""
        labels = self.headers.get("content-encoding", ""), self.headers.get("content-type", "")
        return plain_body(bytes(self._raw), *labels, self._limit)

    def outcome(self) -> HttpResponse | ResponseLost:
        try:
            return self._made(self.body(), self._surplus())
        except UnreadableBody as fault:
            return self._by_status(fault.part) or ResponseLost(
                str(fault), self._made(fault.part) if fault.part else None
            )

    def _surplus(self) -> bytes:
        """Return what was received after the end of the body, for a Content-Length that is too small.

        Some servers count characters instead of bytes, and a 204 or 205 ends with its head.
        """
        if "transfer-encoding" in self.headers or "content-encoding" in self.headers:
            return b""
        head = _last_head(self._received)
        return b"" if head is None else bytes(self._received[head.end() + len(self._raw) :])

    def response_lost(self, detail: str) -> HttpResponse | ResponseLost:
        """Return the outcome when the response could not be received completely.

        Some statuses (408, 425, 429, 5xx, a redirect) are sufficient without the body. A complete response counts even
        if closing the connection failed afterwards: it may contain the only valid refresh token.
        """
        if self.whole:
            return self.outcome()
        try:
            part = self.body()
        except UnreadableBody as fault:
            part = fault.part
        if (answer := self._by_status(part)) is not None:
            return answer
        return ResponseLost(detail, self._made(part) if part else self._not_http())

    def _not_http(self) -> HttpResponse | None:
        """Return the final response in what was received, if httpcore could not parse it, or None if it has no body.

        Without a head that can be parsed, everything that was received counts as the body of a success response.
        """
        head = _last_head(self._received)
        if head is None:
            return HttpResponse(200, bytes(self._received)) if self._received else None
        rest, codings = bytes(self._received[head.end() :]), b",".join(_ENCODING.findall(head[0])).lower()
        rest = _unchunked(rest) if b"chunked" in codings else rest
        try:
            body = plain_body(rest, codings.replace(b"chunked", b"").decode("latin-1"), "", self._limit)
        except UnreadableBody as fault:
            body = fault.part
        return HttpResponse(int(head[1]), body) if body else None

    def _by_status(self, part: bytes) -> HttpResponse | None:
        """Return the response if its status is sufficient. `part` is what was received of the body."""
        status = self.status or 0
        return self._made(part) if status in (408, 425, 429) or status >= 500 or 300 <= status < 400 else None

    def _made(self, body: bytes, surplus: bytes = b"") -> HttpResponse:
        assert self.response is not None
        return HttpResponse(self.response.status_code, body, self.headers.get("retry-after"), surplus)


def _last_head(received: bytes | bytearray) -> re.Match[bytes] | None:
    """Return the head of the final response (not 1xx) in the received bytes, with the status as its first group."""
    head = _HEAD.match(received)
    while head is not None and int(head[1]) < 200:
        head = _HEAD.match(received, head.end())
    return head


def _unchunked(body: bytes) -> bytes:
    """Return the content of a chunked body up to its end or its first invalid chunk (RFC 9112 section 7.1).

    Tolerates bare line feeds and blanks. Returns `body` itself if it is not chunked.
    """
    content, at = bytearray(), 0
    while (size := _CHUNK_SIZE.match(body, at)) is not None and int(size[1], 16):
        at = size.end() + int(size[1], 16)
        content += body[size.end() : at]
    return bytes(content) or body


async def post(
    http: httpx.AsyncClient,
    request: FormRequest,
    timeout: float,
    late: float = 0.0,
    may_send: Callable[[], bool] | None = None,
) -> HttpResponse | NotSent | ResponseLost:
    """Send the form once and read the response, all within `timeout` seconds. Redirects are returned, not followed.

    A decoded body of more than `MAX_BODY_BYTES` bytes is truncated to one byte more than that. Raises only
    cancellation, after which the outcome is as unknown as after `ResponseLost`.

    Args:
        http: The HTTP client.
        request: The form.
        timeout: Seconds until this function returns.
        late: Seconds after the timeout for which `ResponseLost.late` continues to read.
        may_send: Called once the connection is established. If it returns False, the request is not sent.
    """
    if http.is_closed:
        return NotSent("the gateway is shutting down")
    progress = _Progress(MAX_BODY_BYTES, may_send)
    loop = asyncio.get_running_loop()
    exchange = loop.create_task(_exchange(http, _form_post(http, request), timeout, progress))
    continues = False
    try:
        if not await finishes_within(timeout, exchange) and late and progress.sending:
            lost = progress.response_lost(f"no complete response within {timeout:g} s")
            if isinstance(lost, ResponseLost):
                continues = True
                return replace(lost, late=loop.create_task(_received(exchange, late, progress, timeout + late)))
        return await _received(exchange, 0.0, progress, timeout)
    finally:
        if not continues:
            await cancel_until_done(exchange)


async def _received(
    exchange: asyncio.Task[None], seconds: float, progress: _Progress, timeout: float
) -> HttpResponse | NotSent | ResponseLost:
    """Wait at most `seconds` for the exchange, and return its outcome. `timeout` is the time it had in all."""
    try:
        await within(seconds, exchange)
        return progress.outcome()
    except _NEVER_LEFT as fault:
        return _not_sent(fault)
    except _NotAllowed:
        return NotSent("too late to send the request: this process was paused, or the store failed", DownReason.PAUSED)
    except TimeoutError:
        if progress.connecting and not progress.sending:
            return NotSent(f"no connection to the provider within {timeout:g} s")
        return progress.response_lost(f"no complete response within {timeout:g} s")
    except Exception as fault:
        if progress.connecting and not progress.sending:
            # The proxy closed the connection, or did not speak HTTP, instead of opening the tunnel.
            return NotSent(f"no connection to the provider ({type(fault).__name__})", DownReason.PROXY)
        # An unknown error must not count as "not sent". Its text is not used because it may quote the peer.
        return progress.response_lost(f"the connection failed ({type(fault).__name__})")


def _not_sent(fault: Exception) -> NotSent:
    untrusted = certificate_fault(fault)
    if untrusted is not None:
        return NotSent(f"the provider's certificate is not trusted ({untrusted})", DownReason.CERTIFICATE)
    reason = DownReason.PROXY if isinstance(fault, httpx.ProxyError) else DownReason.UNREACHABLE
    return NotSent(f"no connection to the provider ({type(fault).__name__})", reason)


def certificate_fault(fault: BaseException) -> str | None:
    """Return OpenSSL's reason for rejecting the peer's certificate, or None if `fault` has another cause."""
    cause: BaseException | None = fault
    for _ in range(8):
        if cause is None:
            return None
        if isinstance(cause, ssl.SSLCertVerificationError):
            return printable(cause.verify_message or "unknown reason", 200)
        cause = cause.__cause__ or cause.__context__
    return None


@dataclass(frozen=True, slots=True)
class Document:
    """The body of a 200 response and its `Cache-Control`."""

    body: bytes
    cache_control: str


class FetchFailed(Exception):
    """A document could not be fetched. The text does not quote the server."""


async def get(http: httpx.AsyncClient, url: str, limit: int, timeout: float) -> Document:
    """GET a public document of at most `limit` bytes within `timeout` seconds. Raises `FetchFailed` only."""
    headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
    progress = _Progress(limit)
    try:
        await within(timeout, _exchange(http, http.build_request("GET", url, headers=headers), timeout, progress))
        body = progress.body()
    except Exception as fault:
        if progress.status not in (None, 200):
            raise FetchFailed(f"responded with {progress.status}") from None
        raise FetchFailed(_fetch_fault(fault, timeout)) from None
    if progress.status != 200:
        raise FetchFailed(f"responded with {progress.status}")
    if len(body) > limit:
        raise FetchFailed(f"sent more than {limit} bytes")
    return Document(body, progress.headers.get("cache-control", ""))


def _fetch_fault(fault: Exception, timeout: float) -> str:
    if isinstance(fault, TimeoutError):
        return f"no complete response within {timeout:g} s"
    if isinstance(fault, UnreadableBody):
        return str(fault)
    untrusted = certificate_fault(fault)
    if untrusted is not None:
        return f"the certificate is not trusted ({untrusted})"
    return f"the connection failed ({type(fault).__name__})"


def _form_post(http: httpx.AsyncClient, request: FormRequest) -> httpx.Request:
    return http.build_request("POST", request.url, headers=request.headers, content=request.body)


async def _exchange(http: httpx.AsyncClient, request: httpx.Request, timeout: float, progress: _Progress) -> None:
    async with _response(http, request, timeout, progress) as response:
        await progress.read(response)


@asynccontextmanager
async def _response(
    http: httpx.AsyncClient, request: httpx.Request, timeout: float, progress: _Progress
) -> AsyncIterator[httpx.Response]:
    """Send the request and yield the response before its body has been read."""
    request.headers.update(_HEADERS)
    # `within` is the only deadline: httpx's own timeouts would count a pause of this process as inactivity of the
    # server.
    request.extensions["timeout"] = httpx.Timeout(None, pool=timeout / 2).as_dict()
    request.extensions["trace"] = progress
    response = await http.send(request, stream=True, follow_redirects=False)
    try:
        yield response
    finally:
        # Shielded: cancelling a close permanently occupies a slot in httpcore's pool.
        await asyncio.shield(response.aclose())
