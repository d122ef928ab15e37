"""One call of a data API: sends it, retries it where that is safe and useful, and streams the response.

Only GET and HEAD are retried, and only within the `timeout` of the upstream:

- after a rejected token: once, with a refreshed token
- after too many requests: when the budget allows another call
- after a failure of the bank or the connection: up to three times, with growing pauses
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, cast

import httpx
from starlette.types import Send

from akoya_gateway.access.request import Headers
from akoya_gateway.config.model import DataApi
from akoya_gateway.data_api.budget import Budget, Turn
from akoya_gateway.data_api.entitlements import Entitlements
from akoya_gateway.data_api.errors import (
    BankRedirect,
    BankTimeout,
    BankUnavailable,
    NotEntitled,
    ResponseTruncated,
    TokenRefreshed,
    TooManyCalls,
)
from akoya_gateway.data_api.headers import (
    INTERACTION_ID,
    NO_CONTENT,
    context_headers,
    interaction_id,
    request_headers,
    response_headers,
)
from akoya_gateway.data_api.paths import product_of, target_path
from akoya_gateway.data_api.request_body import ClientMessages
from akoya_gateway.data_api.responses import MAX_ERROR_BYTES, Meaning, may_have_code, meaning_of
from akoya_gateway.deadline import running_timeout
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.grants.grant import Grant
from akoya_gateway.grants.manager import GrantManager

SAFE = frozenset({"GET", "HEAD"})
"""Methods whose requests may be retried."""
MAX_REPETITIONS = 3
"""Number of retries after a failure of the bank, as Akoya recommends (docs/akoya.md section 6)."""
FIRST_PAUSE = 0.2
"""Approximate seconds before the first retry. Doubled for each further one."""
LIMIT_PAUSE = 1.0
"""Seconds to wait after a 429. Akoya's limit is per second, and no Retry-After is documented."""


class Outcome(StrEnum):
    """How a call ended, for metrics and the log."""

    OK = "ok"
    PARTIAL = "partial"
    """206: some accounts failed."""
    REJECTED = "rejected"
    """The request was invalid: Akoya's error was passed on, or the gateway refused it."""
    BANK_UNAVAILABLE = "bank-unavailable"
    BANK_TIMEOUT = "bank-timeout"
    CONSENT_ENDED = "consent-ended"
    NOT_ENTITLED = "not-entitled"
    LIMITED = "limited"
    FAILED = "failed"
    """The grant could not be refreshed, or the gateway failed."""
    CLIENT_LEFT = "client-left"


@dataclass(frozen=True, slots=True)
class DataRequest:
    """An admitted request for a data API."""

    api: DataApi
    method: str
    rest: str
    """The normalized path after the access rule's prefix: the product and what follows."""
    query: bytes = field(repr=False)
    """The query, without the parameters that are for the gateway only."""
    headers: Headers = field(repr=False)
    """The client's headers."""
    grant: Grant
    last_access: str
    request_id: str
    is_background: bool = False

    @property
    def connector(self) -> str:
        """The connector, as gateway.yaml names it."""
        return self.grant.connector

    @property
    def may_have_body(self) -> bool:
        """Return True if the request's body is forwarded."""
        return self.method not in SAFE


class CallServices(Protocol):
    """The part of `DataApis` that a call needs."""

    grants: GrantManager
    entitlements: Entitlements

    def random(self) -> float: ...

    def provider_id(self, connector: str) -> str: ...

    def budget(self, environment: str) -> Budget | None: ...

    def client(self, *, keep_alive: bool) -> httpx.AsyncClient: ...


class _TooLate(Exception):
    """The budget allowed the call, but it was not sent in time. Nothing was sent."""


@dataclass(slots=True)
class _ReceivedHead:
    """A response whose head has arrived, and the part of its body that was read to classify it."""

    response: httpx.Response
    meaning: Meaning
    stream: AsyncIterator[bytes]
    read: bytes = b""


class Call:
    """One call. `run` may be called once; the public attributes are for the log and the metrics."""

    def __init__(self, services: CallServices, request: DataRequest, messages: ClientMessages) -> None:
        self._services = services
        self._request = request
        self._grant = request.grant
        self._loop = asyncio.get_running_loop()
        self._remaining = float(request.api.timeout)
        self._late: GatewayError = BankTimeout()
        """The error to raise if `_remaining` runs out now."""
        self.messages = messages
        self.product = "-"
        self.outcome = Outcome.CLIENT_LEFT
        self.status = 0
        self.interaction_id = ""
        self.attempts = 0

    async def run(self, send: Send) -> None:
        """Make the call and send the response. Raises `GatewayError`."""
        try:
            await self._run(send)
        except GatewayError as error:
            self.outcome = _outcome_of(error)
            self.status = error.status
            if self.interaction_id:
                error.headers = ((INTERACTION_ID, self.interaction_id.encode()),)
            raise

    async def _run(self, send: Send) -> None:
        request = self._request
        url = self._url()
        self.product = product_of(request.rest)
        first, more = await self.messages.first()
        began = self._loop.time()
        try:
            async with running_timeout(self._remaining):
                head = await self._send_with_retries(url, first, more=more)
        except TimeoutError:
            raise self._late from None
        self._remaining -= self._loop.time() - began
        try:
            await self._pass_on(head, send)
        finally:
            await _close(head.response)

    def _url(self) -> httpx.URL:
        request = self._request
        path = target_path(request.api, self._services.provider_id(request.connector), request.rest)
        query = b"?" + request.query if request.query else b""
        base = httpx.URL(request.api.base_url)
        try:
            return base.copy_with(raw_path=base.raw_path.rstrip(b"/") + path.encode("ascii") + query)
        except httpx.InvalidURL:
            raise UserError("The address is too long.", status=414, code="path-too-long") from None

    # --- until there is a response to pass on -------------------------------------------------------------------

    async def _send_with_retries(self, url: httpx.URL, first: bytes, *, more: bool) -> _ReceivedHead:
        """Send the request until there is a response to pass on, and return its head. Raises `GatewayError`."""
        repeatable = self._request.method in SAFE
        failures = 0
        refreshed = False
        while True:
            turn = await self._turn()
            try:
                head = await self._send(url, first, more=more, turn=turn)
            except _TooLate:
                self.attempts -= 1
                continue
            meaning = Meaning.UNAVAILABLE if head is None else head.meaning
            if head is not None and meaning is Meaning.PASS:
                return head
            if head is not None:
                await _close(head.response)
            if meaning is Meaning.REDIRECT:
                raise BankRedirect
            if meaning is Meaning.TIMED_OUT:
                raise BankTimeout
            if meaning is Meaning.TOKEN_REJECTED:
                await self._replace_token(is_fresh=refreshed)
                refreshed = True
                if not repeatable:
                    # If the client repeats it and the new token is rejected too, it is not refreshed again.
                    self._services.entitlements.reject(self._grant.id, self.product)
                    raise TokenRefreshed
            elif meaning is Meaning.LIMITED:
                await self._after_limit(repeatable=repeatable)
            else:
                failures += 1
                if not repeatable or failures > MAX_REPETITIONS:
                    raise BankUnavailable
                self._late = BankUnavailable()
                await asyncio.sleep(FIRST_PAUSE * 2.0 ** (failures - 1) * (0.5 + self._services.random()))

    async def _turn(self) -> Turn | None:
        """Wait until the budget, if there is one, allows another call. Raises TooManyCalls if too many wait already."""
        budget = self._services.budget(self._request.api.environment.name)
        if budget is None:
            return None
        before, self._late = self._late, TooManyCalls(retry_after=budget.retry_after())
        turn = await budget.acquire(self._grant.key.owner, is_background=self._request.is_background)
        self._late = before
        return turn

    async def _after_limit(self, *, repeatable: bool) -> None:
        """Pause after a rate limit error from Akoya. Raises TooManyCalls if the call may not be retried."""
        budget = self._services.budget(self._request.api.environment.name)
        if budget is not None:
            budget.pause(LIMIT_PAUSE)
        if not repeatable:
            raise TooManyCalls
        self._late = TooManyCalls()
        if budget is None:
            await asyncio.sleep(LIMIT_PAUSE * (0.5 + self._services.random()))

    async def _replace_token(self, *, is_fresh: bool) -> None:
        """Refresh the grant after its token was rejected. Raises `NotEntitled` if the token was fresh."""
        entitlements, grant, product = self._services.entitlements, self._grant, self.product
        if is_fresh:
            entitlements.reject(grant.id, product)
            raise NotEntitled
        if entitlements.is_rejected(grant.id, product):
            raise NotEntitled
        self._grant = await self._services.grants.replace_rejected(grant)

    async def _send(self, url: httpx.URL, first: bytes, *, more: bool, turn: Turn | None) -> _ReceivedHead | None:
        """Send the request once. Returns None if no response was received. Raises `_TooLate` if nothing was sent."""
        request = self._request
        has_body = bool(first) or more
        headers = [
            *request_headers(request.headers, has_body=has_body),
            *context_headers(
                request.api,
                self._grant.tokens.bearer,
                "batch" if request.is_background else "user",
                request.last_access,
            ),
        ]
        content = self.messages.rest(first) if more else first or None
        client = self._services.client(keep_alive=request.method in SAFE)
        self.attempts += 1
        built = client.build_request(request.method, url, headers=headers, content=content, timeout=None)
        budget = self._services.budget(request.api.environment.name)
        if budget is not None and turn is not None:
            built.extensions["trace"] = _refuse_late(budget, turn)
        try:
            response = await client.send(built, stream=True, follow_redirects=False)
        except httpx.LocalProtocolError:
            raise UserError("The length of the body differs from Content-Length.") from None
        except httpx.TransportError:
            return None
        return await self._read_head(response)

    async def _read_head(self, response: httpx.Response) -> _ReceivedHead | None:
        """Classify the response. Reads the body of an error, because it contains the code."""
        self.interaction_id = interaction_id(response.headers.raw)
        stream = aiter(cast("httpx.AsyncByteStream", response.stream))
        if not may_have_code(response.status_code):
            return _ReceivedHead(response, meaning_of(response.status_code), stream)
        body = bytearray()
        try:
            async for chunk in stream:
                body += chunk
                if len(body) > MAX_ERROR_BYTES:
                    break
        except httpx.TransportError:
            await _close(response)
            return None
        return _ReceivedHead(response, meaning_of(response.status_code, bytes(body)), stream, bytes(body))

    # --- the response ---------------------------------------------------------------------------------------------

    async def _pass_on(self, head: _ReceivedHead, send: Send) -> None:
        """Stream the response. Only time spent waiting for Akoya counts towards the timeout."""
        response = head.response
        self.status = response.status_code
        self.outcome = _outcome_of_status(self.status)
        if self.status < 400:
            self._services.entitlements.accept(self._grant.id, self.product)
        headers = response_headers(response.headers.raw, self.status)
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self._request.method != "HEAD" and self.status not in NO_CONTENT:
            if head.read:
                await send({"type": "http.response.body", "body": head.read, "more_body": True})
            while (chunk := await self._chunk(head.stream)) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _chunk(self, stream: AsyncIterator[bytes]) -> bytes | None:
        began = self._loop.time()
        try:
            async with running_timeout(self._remaining):
                return await anext(stream, None)
        except (TimeoutError, httpx.TransportError):
            raise ResponseTruncated from None
        finally:
            self._remaining -= self._loop.time() - began


def _refuse_late(budget: Budget, turn: Turn) -> Callable[[str, object], Awaitable[None]]:
    """Return an httpx trace function that raises `_TooLate` just before a request would be sent too late.

    Only httpx can tell when a request is sent, because the request may wait for its connection and for a busy event
    loop.
    """

    async def trace(event: str, _: object) -> None:
        if event == "http11.send_request_headers.started" and not budget.may_still_send(turn):
            raise _TooLate

    return trace


def _outcome_of(error: GatewayError) -> Outcome:
    outcomes: tuple[tuple[type[GatewayError], Outcome], ...] = (
        (NeedsReconnect, Outcome.CONSENT_ENDED),
        (NotEntitled, Outcome.NOT_ENTITLED),
        (TooManyCalls, Outcome.LIMITED),
        (BankTimeout, Outcome.BANK_TIMEOUT),
        (BankUnavailable, Outcome.BANK_UNAVAILABLE),
        (BankRedirect, Outcome.BANK_UNAVAILABLE),
        (ResponseTruncated, Outcome.BANK_UNAVAILABLE),
        (UserError, Outcome.REJECTED),
    )
    return next((outcome for kind, outcome in outcomes if isinstance(error, kind)), Outcome.FAILED)


def _outcome_of_status(status: int) -> Outcome:
    if status == 206:
        return Outcome.PARTIAL
    return Outcome.OK if status < 400 else Outcome.REJECTED


async def _close(response: httpx.Response) -> None:
    # Shielded: cancelling a close permanently occupies a slot in httpcore's pool.
    await asyncio.shield(response.aclose())
