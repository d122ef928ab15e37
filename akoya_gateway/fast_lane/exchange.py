"""What the two exchanges of the fast lane share: the request, its upstream connection, and how it fails."""

from __future__ import annotations

from typing import Generic

from starlette.types import ASGIApp

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.interfaces import Client, LaneServices
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget
from akoya_gateway.gateway.request_id import value_in
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.upstream.http.connection import Connection


class FastExchange(Generic[Client]):
    """One request that the fast lane has sent on an idle upstream connection, whose `ResponseHandler` it is.

    `client` gets the response. Attributes that most exchanges never set are defaults of the class, because an exchange
    is created for each request.
    """

    _request: RequestInfo | None = None

    def __init__(
        self,
        client: Client,
        lane: LaneServices,
        runtime: Runtime,
        target: CachedTarget,
        headers: CachedHeaders,
        admission: Admitted,
        connection: Connection,
        id_line: bytes,
    ) -> None:
        self._client = client
        self._lane = lane
        self._runtime = runtime
        self._target = target
        self._headers = headers
        self._admission = admission
        self._connection = connection
        self._id_line = id_line
        self._started_at = lane.gateway.started_at()

    @property
    def request(self) -> RequestInfo:
        """The `RequestInfo` of this request, built on first use."""
        if self._request is None:
            self._request = self._lane.request(self._target, self._headers, self.request_id)
        return self._request

    @property
    def method(self) -> str:
        """The method, for the access log."""
        return self._target.target.method

    @property
    def raw_path(self) -> bytes:
        """The path, for the access log."""
        return self._target.target.raw_path

    @property
    def request_id(self) -> str:
        """The request ID, for the access log."""
        return value_in(self._id_line).decode()

    def on_writable(self) -> None:
        """Do nothing: the request has no body (`upstream.http.interfaces.ResponseHandler`)."""

    def record_response(self, status: int) -> None:
        """Report that the response has started."""
        self._lane.gateway.record_response(self, status, self._admission.rule.label, self._started_at)

    def _error_app(self, error: GatewayError) -> ASGIApp | None:
        """Return an ASGI app that sends the error response for a request whose response has not started.

        None if the upstream closed the idle connection just as the request was written. The general path then handles
        the request again, on a new connection.
        """
        if self._connection.may_retry(error, idempotent=self._target.idempotent):
            return None
        return self._lane.failing(error, self._admission.rule.label, self._started_at)
