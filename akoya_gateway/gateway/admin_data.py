"""The routes for jobs on the admin listener: for tokens (`gateway.admin_token`), and for calls of a data API.

The call is `GET /akoya/data/{connector}/{product}...?owner=&grant=`. Its route exists if the token route does and an
upstream is a data API. It takes the same bearer token. The job gets the data but no token. Its calls have the
interaction type `batch` and a lower priority than those of users.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from akoya_gateway.access.grant_selection import validated
from akoya_gateway.access.path_normalization import normalize_path
from akoya_gateway.config.model import DataApi
from akoya_gateway.data_api.call import SAFE, DataRequest
from akoya_gateway.data_api.paths import forwarded_query
from akoya_gateway.errors import GatewayError, MethodNotAllowed, UserError
from akoya_gateway.gateway.admin_token import (
    MAX_LOGGED,
    NoToken,
    authenticate,
    connect_link,
    fresh_grant,
    last_access,
    named_owner,
    token_of,
)
from akoya_gateway.gateway.request_id import RequestIds
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.log import logger
from akoya_gateway.responses.response import json_response, problem_response
from akoya_gateway.signing.header_names import REQUEST_ID
from akoya_gateway.signing.header_values import timestamp

log = logger("akoya_gateway.gateway.admin_data")

_OWN_PARAMETERS = ("owner", "grant")


class AdminApps:
    """The routes for jobs as one ASGI app. `running` returns the active runtime, or None after shutdown."""

    def __init__(self, running: Callable[[], Runtime | None]) -> None:
        self._current_runtime = running
        self._request_ids = RequestIds()

    def handles(self, path: str) -> bool:
        """Return True if the path is one of the routes, and the configuration turns that route on."""
        runtime = self._current_runtime()
        if runtime is None or runtime.config.token_bearer is None:
            return False
        prefix = runtime.config.prefix
        return path.startswith(f"{prefix}/token/") or (
            path.startswith(f"{prefix}/data/") and bool(runtime.config.data_apis)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request for which `handles` has just returned True."""
        runtime = self._current_runtime()
        assert runtime is not None, "`handles` returns False without a runtime"
        request, request_id = Request(scope), self._request_ids.new()
        facts, result = dict[str, str](), "ok"
        is_token = scope["path"].startswith(f"{runtime.config.prefix}/token/")
        sent = _NumberedSend(send, request_id)
        response = None
        try:
            if is_token:
                response = json_response(await token_of(runtime, request, facts))
            else:
                call = await _data_request(runtime, request, request_id.decode(), facts)
                await runtime.data_apis.serve(call, receive, sent)
        except GatewayError as error:
            if sent.status:
                # The response has started: the server closes the connection, so that the job sees a truncated response.
                raise
            # 404 from both routes: a 401 means that the job's own bearer token is wrong.
            ended = NoToken(code=error.code, title=error.title) if isinstance(error, NeedsReconnect) else error
            result = ended.code
            link = connect_link(runtime, facts) if isinstance(ended, NoToken) else None
            response = problem_response(ended, request_id.decode(), link)
        status = sent.status if response is None else response.status_code
        log_event = log.warning if result == "unauthorized" else log.info
        log_event(
            "token requested" if is_token else "data requested",
            result=result,
            status=status,
            request_id=request_id.decode(),
            **facts,
        )
        if response is not None:
            await response.with_headers((REQUEST_ID, request_id))(scope, receive, send)


class _NumberedSend:
    """Adds the request ID to the response, and records its status (0 until it has started)."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self._header = (REQUEST_ID, request_id)
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], self._header]}
        await self._send(message)


async def _data_request(runtime: Runtime, request: Request, request_id: str, facts: dict[str, str]) -> DataRequest:
    """Return the call that a job requests, and add the log fields to `facts`. Raises `GatewayError`."""
    if request.method not in SAFE:
        raise MethodNotAllowed("GET, HEAD")
    authenticate(runtime, request)
    # The same normalization as on the public port, so that Akoya cannot interpret the path differently.
    path = normalize_path(request.scope["raw_path"]).removeprefix(f"{runtime.config.prefix}/data/")
    connector, _, rest = path.partition("/")
    owner = named_owner(request)
    chosen = validated(request.query_params.getlist("grant"))
    facts |= {"owner": owner[:MAX_LOGGED], "connector": connector[:MAX_LOGGED]}
    api = _data_api(runtime, connector)
    grant = await fresh_grant(runtime, owner, connector, chosen)
    facts["grant"] = grant.public_id
    return DataRequest(
        api=api,
        method=request.method,
        rest=rest,
        query=forwarded_query(request.scope["query_string"], _OWN_PARAMETERS),
        headers=request.scope["headers"],
        grant=grant,
        last_access=timestamp(await last_access(runtime, grant)),
        request_id=request_id,
        is_background=True,
    )


def _data_api(runtime: Runtime, connector: str) -> DataApi:
    """Return the data API of the connector's environment. Raises `UserError` (404) if there is none."""
    configured = runtime.config.connectors.get(connector)
    for api in runtime.config.data_apis.values():
        if configured is not None and api.environment.name == configured.client.environment.name:
            return api
    raise UserError("No bank of that name has a data API.", status=404, code="unknown-connector")
