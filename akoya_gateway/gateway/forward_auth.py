"""`/akoya/forward-auth`: the decision for a proxy that asks before it passes a request on itself.

The proxy tells which request it means, in one of three ways, and is believed only if it is one of `trusted_proxies`
(`gateway.original_request` reads it):

=======================================  ==========================================================================
nginx `auth_request`                     `X-Original-Method`, `X-Original-URI`; `Host`
Traefik, Caddy, HAProxy (our recipe)     `X-Forwarded-Method`, `X-Forwarded-Uri`, `X-Forwarded-Host`
Envoy `ext_authz` (HTTP, `path_prefix`)  its own method and the path below `/akoya/forward-auth`; `Host`
=======================================  ==========================================================================

Cookies and the rest are the client's own. What two of the ways say differently is refused, not chosen from
(CVE-2026-40575, CVE-2026-33495). `docs/forward-auth.md` says what each proxy has to do; `deploy/` does it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from akoya_gateway.access.path_normalization import PathRefused, normalize_path
from akoya_gateway.access.request import RequestInfo
from akoya_gateway.admission.gate import Admission, Admitted
from akoya_gateway.authentication.principal import is_trusted_peer
from akoya_gateway.errors import GatewayError, OperatorError, UserError
from akoya_gateway.gateway.original_request import ORIGINAL_URI, InvalidOriginalRequest, OriginalRequest
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.responses.response import Response

ANSWER_HEADER = b"x-akoya-answer"
"""`client`: the proxy has been told no, and asks again for what to tell the client (nginx drops it the first time)."""


class ForwardAuthOff(UserError):
    """Behind a balancer that is a trusted proxy, a page's own script could ask, and read the user's tokens."""

    status = 404
    code = "forward-auth-off"
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("This gateway decides for no other proxy: set forward_auth: true if it is to.")


class UntrustedProxy(UserError):
    status = 403
    code = "untrusted-proxy"
    title = "Access denied"


class DecisionObserver(Protocol):
    """Hears which request was meant and what was decided; for logs and metrics.
    `gateway.response_observer.ObservedSend` is one."""

    def on_original_request(self, original: RequestInfo) -> None: ...

    def on_decision(self, outcome: Admission) -> None: ...


def is_forward_auth(prefix: str, path: str) -> bool:
    route = prefix + "/forward-auth"
    return path == route or path.startswith(route + "/")


async def forward_auth(runtime: Runtime, request: RequestInfo, told: DecisionObserver) -> Response:
    """200 with our signed headers, or what the client is to get. Raises `GatewayError` as `AccessGate.admit` does."""
    if not is_trusted_peer(runtime.trusted_proxies, request):
        raise UntrustedProxy("Only trusted_proxies may ask for a decision.")
    if not request.raw_path.startswith(runtime.original_requests.route):
        # A client's `/akoya/%66orward-auth`, past a proxy that keeps the route from clients by its plain spelling.
        raise PathRefused("The path can be read in two ways.")
    if request.header(ORIGINAL_URI) is None:
        original = runtime.original_requests.read(request)
        return _response(await _decide(runtime, request, original, told), original)
    if request.header(ANSWER_HEADER) == b"client":
        return _for_the_client(await _decide(runtime, request, _replaceable(runtime, request), told))
    try:
        original = _replaceable(runtime, request)
        return _for_nginx(_response(await _decide(runtime, request, original, told), original))
    except GatewayError as error:
        # `auth_request` makes a 500 of any status but 2xx, 401 and 403.
        error.status = error.status if error.status in (401, 403) or error.status >= 500 else 403
        raise


def _replaceable(runtime: Runtime, request: RequestInfo) -> OriginalRequest:
    original = runtime.original_requests.read(request)
    if not original.replaceable:
        raise InvalidOriginalRequest(
            "The request holds a header of the gateway's that the proxy would pass on.", status=403
        )
    return original


async def _decide(
    runtime: Runtime, request: RequestInfo, original_request: OriginalRequest, told: DecisionObserver
) -> Admission:
    original = original_request.request_info(request)
    told.on_original_request(original)
    path = normalize_path(original.raw_path)
    if runtime.router.matches(path):
        raise UntrustedProxy("The proxy must pass the gateway's own routes to the gateway.", code="own-route")
    if original.websocket:
        require_own_origin(original, runtime.config.public_url)
    admission = runtime.gate.try_admit(original, path) or await runtime.gate.admit(original, path)
    told.on_decision(admission)
    return admission


def _response(admission: Admission, original: OriginalRequest) -> Response:
    if not isinstance(admission, Admitted):
        return admission.response
    return Response(200, tuple(original.response_headers(admission.headers)))


def _for_nginx(response: Response) -> Response:
    """A redirect is a 401 with a Location, which a recipe can turn back into one."""
    if response.status in (400, 404):  # `auth_request` makes a 500 of them.
        return replace(response, status=403)
    return replace(response, status=401) if response.status == 302 else response


def _for_the_client(admission: Admission) -> Response:
    """The whole refusal, with its body. A yes now is worth nothing: no token may go out this way."""
    if isinstance(admission, Admitted):
        raise OperatorError("The decision has just changed. Try again.", code="decision-changed", retry_after=1)
    return admission.response
