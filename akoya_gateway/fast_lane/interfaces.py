"""Protocols between the parts of the fast lane, so that no part imports the one that creates it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.upstream.http.connection import Connection

_Exchange_contra = TypeVar("_Exchange_contra", contravariant=True)


class LaneServices(Protocol):
    """The lane, as used by an exchange."""

    gateway: Gateway
    date_header: DateHeader

    def request(self, target: CachedTarget, headers: CachedHeaders, request_id: str | None = None) -> RequestInfo: ...

    def failing(self, error: GatewayError, rule: str, began: float) -> ASGIApp: ...


Dispatch = tuple[Runtime, Admitted, Connection, bytes, bytes]
"""An admitted request: the runtime, the decision, the connection, the request ID's header line, and the request head.

The caller sends the request head on the connection.
"""


class ClientConnection(Protocol[_Exchange_contra]):
    """The client's connection, as used by the lane and its exchanges."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState

    def make_scope(self, headers: Headers) -> Scope: ...

    def detach(self) -> None: ...

    def on_response_sent(self) -> None: ...

    def fall_back(self, exchange: _Exchange_contra, app: ASGIApp | None, *, retry: bool) -> None: ...

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None: ...
