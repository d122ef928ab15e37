"""Serves admitted requests whose access rule leads to a data API, instead of an upstream app."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.admission.decision import Admitted
from akoya_gateway.config.model import AccessRule, DataApi, GrantSource, Origin
from akoya_gateway.data_api.call import SAFE, DataRequest
from akoya_gateway.data_api.paths import forwarded_query
from akoya_gateway.data_api.service import DataApis
from akoya_gateway.errors import MethodNotAllowed, OperatorError
from akoya_gateway.gateway.request_id import SCOPE_KEY
from akoya_gateway.gateway.websocket_origin import require_own_origin


class DataCalls:
    """Makes the calls for requests that were admitted under one configuration."""

    def __init__(self, apis: DataApis, public_url: Origin) -> None:
        self._apis = apis
        self._public_url = public_url

    async def __call__(
        self, admitted: Admitted, info: RequestInfo, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Make the call of one request.

        Args:
            admitted: The decision.
            info: The request as the client sent it.
            path: The normalized path.
            scope: The ASGI scope for the app.
            receive: Returns the client's messages.
            send: Sends the response.

        Raises:
            GatewayError: The call failed before the response was started, or the response is incomplete.
        """
        rule, grant, claims = admitted.rule, admitted.grant, admitted.verified
        if rule.data_api is None or grant is None or claims is None or claims.last_access is None:
            # Not reached with a valid configuration: no call is made without the grant that was required.
            raise OperatorError("There is no grant for this call.")
        require_method(rule, scope["method"])
        if scope["method"] not in SAFE:
            require_own_origin(info, self._public_url, "Only the app's own pages may change data.")
        _require_environment(rule.data_api, grant.key.environment)
        request = DataRequest(
            api=rule.data_api,
            method=scope["method"],
            rest=path_below(rule, path),
            query=forwarded_query(scope["query_string"], _own_parameters(rule)),
            headers=scope["headers"],
            grant=grant,
            last_access=claims.last_access,
            request_id=scope[SCOPE_KEY],
        )
        await self._apis.serve(request, receive, send)


def require_method(rule: AccessRule, method: str) -> None:
    """Raise MethodNotAllowed for other methods than GET and HEAD, unless the rule names its methods."""
    if rule.methods is None and method not in SAFE:
        raise MethodNotAllowed("GET, HEAD")


def _require_environment(api: DataApi, environment: str) -> None:
    """Check that a token goes only to the environment that issued it. The configuration ensures that."""
    if api.environment.name != environment:
        raise OperatorError(f"{api.address} is not of environment {environment}.")


def path_below(rule: AccessRule, path: str) -> str:
    """Return the part of the path that matches the `*` at the end of the rule's path."""
    return path.split("/", rule.path.count("/"))[-1]


def _own_parameters(rule: AccessRule) -> tuple[str, ...]:
    """Return the query parameters that are for the gateway only: the one that chooses the login."""
    selector = rule.grant
    return () if selector is None or selector.source is not GrantSource.QUERY else (selector.name,)
