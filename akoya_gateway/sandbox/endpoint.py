"""The ASGI app of one endpoint, which applies the injected faults."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.fault_injection import DrawnFaults, Fault, FaultKind

ABORT = "akoya.sandbox.abort"
"""ASGI extension of `sandbox.server`: `{"abort": callable}` aborts the TCP connection."""
BODY_LIMIT = 65_536
BODILESS = frozenset({204, 205, 304})
"""Statuses whose responses have no body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5). The server refuses to send one.
"""
PROXY_PAGE = (
    "<!doctype html><html><head><title>Service notice</title></head>"
    "<body><h1>We will be right back</h1><p>Planned maintenance.</p></body></html>"
)


class ConnectionCut(Exception):
    """Raised to close the connection if the server does not support the abort extension."""


class CallerGone(Exception):
    """The caller has disconnected while its request was delayed."""


@dataclass(frozen=True, slots=True)
class Form:
    """`application/x-www-form-urlencoded` parameters."""

    pairs: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(text: str) -> Form:
        return Form(tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=2_000)))

    @property
    def repeated(self) -> bool:
        """True if a parameter occurs more than once."""
        return len({name for name, _ in self.pairs}) != len(self.pairs)

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.pairs if found == name]

    def get(self, name: str) -> str | None:
        """Return the value, or None if it is absent or empty.

        Parameters sent without a value are treated as omitted (RFC 6749 section 3.2).
        """
        return next((value for found, value in self.pairs if found == name), None) or None


@dataclass(slots=True)
class Call:
    """One request, its form and the faults that apply to it."""

    request: Request
    form: Form
    plan: DrawnFaults
    facts: dict[str, Any] = field(default_factory=dict)
    """Properties of its event, known before it is processed."""
    event: dict[str, Any] | None = None
    """The event that the endpoint recorded, or None."""


Handler = Callable[[Call], Awaitable[Response]]


class Endpoint:
    """ASGI app that draws the faults, runs `handler` and applies the faults to its response."""

    def __init__(self, context: SandboxContext, name: str, handler: Handler, *, reads_form: bool = False) -> None:
        self._context = context
        self._name = name
        self._group = name.partition(".")[0]
        self._handler = handler
        self._reads_form = reads_form
        self._time_limit = context.settings.data_timeout if self._group == "data" else math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        form = await _form(request) if self._reads_form else Form()
        call = self._call(request, form)
        try:
            await self._respond(call, scope, receive, send)
        except CallerGone:
            self._note(call, "caller_gone")

    async def _respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        plan = call.plan
        response = await self._delayed(call, FaultKind.SLOW)
        if response is None and plan.has(FaultKind.CUT_BEFORE):
            self._note(call, "cut_before")
            await cut(scope, receive)
            return
        response = response or self._injected_response(call)
        if response is not None:
            self._note(call, "fault")
        else:
            response = await self._handler(call)
            if call.event is not None and plan.faults:
                call.event["faults"] = plan.kinds()
            late = await self._delayed(call, FaultKind.SLOW_AFTER)
            if plan.has(FaultKind.CUT_AFTER):
                await cut(scope, receive)
                return
            if plan.has(FaultKind.CUT_DURING):
                await _send_half(response, send)
                await cut(scope, receive)
                return
            if harmed := plan.get(FaultKind.STATUS_AFTER):
                response = self._failure(harmed)
            response = late or response
        if response.status_code in BODILESS:
            response = Response(status_code=response.status_code)
        if self._group == "data":
            response.headers["x-akoya-interaction-id"] = self._context.uuid()
        await response(scope, receive, send)

    def _call(self, request: Request, form: Form) -> Call:
        names: tuple[str, ...] = (self._group, self._name)
        if self._group == "token":
            names = ("token", f"token.{form.get('grant_type')}")
        facts: dict[str, Any] = {}
        connector = None
        if self._group == "data":
            connector = request.path_params["provider"]
            product = self._name.partition(".")[2]
            facts = {"path": request.url.path, "product": product, "provider": connector}
        return Call(request, form, self._context.faults.draw(*names, connector=connector), facts)

    async def _delayed(self, call: Call, kind: FaultKind) -> Response | None:
        """Wait as a fault of this kind says. Returns the 408 if that exceeds the time limit of the data APIs.

        Raises CallerGone if the caller of a data API disconnects meanwhile.
        """
        fault = call.plan.get(kind)
        if fault is None:
            return None
        pause = min(fault.seconds, self._time_limit)
        if self._group == "data":
            await _sleep_while_connected(call.request, pause)
        else:
            await asyncio.sleep(pause)
        return self._failure(Fault(FaultKind.STATUS, status=408)) if fault.seconds >= self._time_limit else None

    def _note(self, call: Call, outcome: str) -> None:
        state, now = self._context.state, self._context.now()
        state.record(now, self._group, outcome, faults=call.plan.kinds(), **call.facts)

    def _injected_response(self, call: Call) -> Response | None:
        """Return the response of a fault that replaces the endpoint, or None."""
        if failed := call.plan.get(FaultKind.STATUS):
            return self._failure(failed)
        if page := call.plan.get(FaultKind.HTML):
            return HTMLResponse(PROXY_PAGE, page.status or 200)
        if call.plan.has(FaultKind.GARBAGE):
            return Response('{"id_token": "eyJ', 200, media_type="application/json")
        return None

    def _failure(self, fault: Fault) -> Response:
        status = fault.status or 503
        if self._group == "data":
            error = DataError.of_status(status, fault.code, "sandbox fault")
            return JSONResponse(error.body(), error.status)
        if self._group in ("token", "revoke"):
            return JSONResponse({"error": "server_error", "error_description": "sandbox fault"}, status)
        return Response("sandbox fault", status, media_type="text/plain")


async def _sleep_while_connected(request: Request, seconds: float) -> None:
    """Sleep. Raises CallerGone if the caller disconnects meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
    raise CallerGone


async def _form(request: Request) -> Form:
    """Return the form of a POST request, or an empty one for another media type or a body over 64 KiB."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            return Form()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        return Form()
    try:
        return Form.parse(body.decode())
    except ValueError:
        return Form()


async def cut(scope: Scope, receive: Receive) -> None:
    """Abort the connection. Raises ConnectionCut if the server does not support the abort extension."""
    extension = (scope.get("extensions") or {}).get(ABORT)
    if extension is None:
        raise ConnectionCut
    extension["abort"]()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_half(response: Response, send: Send) -> None:
    body = bytes(response.body)
    headers = [(name, value) for name, value in response.raw_headers if name != b"content-length"]
    headers.append((b"content-length", str(len(body) + 1).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await asyncio.sleep(0.05)
