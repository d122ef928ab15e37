"""`/akoya/forward-auth`: makes the access decision for another proxy, which forwards the request itself.

The proxy describes the original request in one of three ways, and is trusted only if it is one of `trusted_proxies`
(`gateway.original_request` parses the description):

=======================================  ==========================================================================
nginx `auth_request`                     `X-Original-Method`, `X-Original-URI`; `Host`
Traefik, Caddy, HAProxy (our recipe)     `X-Forwarded-Method`, `X-Forwarded-Uri`, `X-Forwarded-Host`
Envoy `ext_authz` (HTTP, `path_prefix`)  its own method and the path below `/akoya/forward-auth`; `Host`
=======================================  ==========================================================================

Cookies and all other headers are the client's own. A request that is described in two ways is rejected; neither is
preferred (CVE-2026-40575, CVE-2026-33495). `docs/forward-auth.md` describes how to configure each proxy; `deploy/` has
the configurations.
"""

from __future__ import annotations

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.access.request import Headers, RequestInfo
from akoya_gateway.admission.decision import Admission, Admitted
from akoya_gateway.authentication.principal import is_trusted_peer
from akoya_gateway.client_headers import setting_for
from akoya_gateway.errors import GatewayError, OperatorError, UserError
from akoya_gateway.gateway.exchange import Exchange
from akoya_gateway.gateway.original_request import ORIGINAL_URI, InvalidOriginalRequest, OriginalRequest
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.responses.response import Response

ANSWER_HEADER = b"x-akoya-answer"
"""Request header, set to `client` when the proxy requests the denial response for the client after a denial.

The second request is needed because nginx `auth_request` discards the response body.
"""


class ForwardAuthOff(UserError):
    """Raised if forward-auth is off.

    It is off by default: behind a load balancer in `trusted_proxies`, a script on a page could call this route and read
    the user's tokens.
    """

    status = 404
    code = "forward-auth-off"
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("Forward-auth is off. Set `forward_auth: true` to turn it on.")


class UntrustedProxy(UserError):
    """The caller may not use forward-auth, or does not route requests as it must."""

    status = 403
    code = "untrusted-proxy"
    title = "Access denied"


class DataRuleNotProxied(UserError):
    """The rule leads to a data API. The gateway calls it itself, and a proxy would only get the headers."""

    status = 403
    code = "data-api-not-proxied"
    title = "Access denied"

    def __init__(self) -> None:
        super().__init__("The proxy must forward requests for a data API to the gateway.")


def is_forward_auth(prefix: str, path: str) -> bool:
    """Return True if the path is the forward-auth route or below it."""
    route = prefix + "/forward-auth"
    return path == route or path.startswith(route + "/")


async def forward_auth(runtime: Runtime, request: RequestInfo, exchange: Exchange) -> Response:
    """Return 200 with the signed gateway headers, or the response for the client.

    `exchange` gets the original request and the decision, for logs and metrics.

    Raises `GatewayError` in the same cases as `AccessGate.admit`.
    """
    if not is_trusted_peer(runtime.trusted_proxies, request):
        raise UntrustedProxy("Only `trusted_proxies` may use forward-auth.")
    if not request.raw_path.startswith(runtime.original_requests.route):
        # A client sent an encoded spelling, such as `/akoya/%66orward-auth`, to get past a proxy that blocks only the
        # plain path.
        raise PathRefused("The path is ambiguous.")
    if request.header(ORIGINAL_URI) is None:
        original = runtime.original_requests.read(request)
        return _response(*await _decide(runtime, request, original, exchange), original)
    if request.header(ANSWER_HEADER) == b"client":
        admission, _ = await _decide(runtime, request, _replaceable(runtime, request), exchange)
        return _for_the_client(admission)
    try:
        original = _replaceable(runtime, request)
        return _for_nginx(_response(*await _decide(runtime, request, original, exchange), original))
    except GatewayError as error:
        # nginx `auth_request` turns every status except 2xx, 401 and 403 into 500.
        error.status = error.status if error.status in (401, 403) or error.status >= 500 else 403
        raise


def _replaceable(runtime: Runtime, request: RequestInfo) -> OriginalRequest:
    original = runtime.original_requests.read(request)
    if original.irreplaceable is not None:
        name, setting = original.irreplaceable[:64].decode("latin-1"), setting_for(original.irreplaceable)
        remedy = "" if setting is None else f" If the app needs it, list it in `{setting}`."
        raise InvalidOriginalRequest(
            f"The request contains the header {name}, which the proxy would pass on to the app.{remedy}", status=403
        )
    return original


async def _decide(
    runtime: Runtime, request: RequestInfo, original_request: OriginalRequest, exchange: Exchange
) -> tuple[Admission, Headers]:
    """Return the decision and the signed gateway headers."""
    original = original_request.request_info(request)
    exchange.logged = original
    target = runtime.targets.route(original.method, original.raw_path)
    if target.is_own:
        raise UntrustedProxy("The proxy must forward the gateway's own routes to the gateway.", code="own-route")
    if target.match is not None and target.match.rule.data_api is not None:
        raise DataRuleNotProxied
    if original.websocket:
        require_own_origin(original, runtime.config.public_url)
    headers = runtime.injector.read(original.headers)
    admission = await runtime.gate.admit(target, original, headers)
    injected: Headers = []
    if isinstance(admission, Admitted):
        authority = headers.authorities[target.secure]
        injected = admission.headers(target.verb, authority, original.raw_path, original.query, runtime.clock())
    exchange.decision = admission
    return admission, injected


def _response(admission: Admission, injected: Headers, original: OriginalRequest) -> Response:
    if not isinstance(admission, Admitted):
        return admission.response
    return Response(200, original.response_headers(injected))


def _for_nginx(response: Response) -> Response:
    """Return the response with a status that nginx `auth_request` accepts.

    A redirect becomes a 401 with a `Location`, which the nginx configuration can turn back into a redirect.
    """
    if response.status_code in (400, 404, 409):  # nginx would turn them into 500.
        return response.with_status(403)
    return response.with_status(401) if response.status_code == 302 else response


def _for_the_client(admission: Admission) -> Response:
    """Return the complete denial response, with its body.

    If the decision has become "allow", fail: tokens must not be returned here.
    """
    if isinstance(admission, Admitted):
        raise OperatorError("The decision has just changed. Try again.", code="decision-changed", retry_after=1)
    return admission.response
