"""The emulator as an ASGI app."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random, SystemRandom

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from akoya_gateway.clock import Clock
from akoya_gateway.sandbox.authorization_endpoint import SCOPES
from akoya_gateway.sandbox.consent_pages import ConsentPages
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.control_api import ControlApi
from akoya_gateway.sandbox.data.api import ROUTES, DataApi, Product
from akoya_gateway.sandbox.endpoint import Call, Endpoint, Handler
from akoya_gateway.sandbox.fault_injection import ArmedFaults
from akoya_gateway.sandbox.gateway_environment import jwks_path
from akoya_gateway.sandbox.settings import SandboxSettings
from akoya_gateway.sandbox.signing_keys import SigningKeys
from akoya_gateway.sandbox.state import State
from akoya_gateway.sandbox.token_endpoint import RevocationEndpoint, TokenEndpoint

_ASSETS = Path(__file__).parent / "assets"


def create_app(
    settings: SandboxSettings | None = None,
    clock: Clock = time.time,
    random: Random | None = None,
    keys: SigningKeys | None = None,
) -> Starlette:
    """Return the emulator as an ASGI app.

    Args:
        settings: Defaults to Akoya's documented behaviour.
        clock: Returns Unix seconds.
        random: Source of tokens and codes, and of the probability of faults. Defaults to a secure one.
        keys: Existing signing keys, because generating new ones is slow.
    """
    settings = settings or SandboxSettings()
    random = random or SystemRandom()
    context = SandboxContext(
        settings=settings,
        real_clock=clock,
        random=random,
        state=State.of(settings),
        keys=keys or SigningKeys(settings.alg),
        faults=ArmedFaults(settings.faults, random),
    )
    pages, data = ConsentPages(context), DataApi(context)

    def route(path: str, name: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, Endpoint(context, name, handler, reads_form=method == "POST"), methods=[method])

    def data_route(product: str, rest: str, respond: Product) -> Route:
        path = f"/{product}/{{version}}/{{provider}}{rest}"
        return route(path, f"data.{product}", data.handler(product, respond))

    async def style(request: object) -> Response:
        return FileResponse(_ASSETS / "sandbox.css", media_type="text/css")

    routes: list[BaseRoute] = [
        route("/auth", "authorization", pages.authorize),
        route("/consent/{login}/{step}", "consent", pages.show),
        route("/consent/{login}/{step}", "consent", pages.act, "POST"),
        Route("/", pages.index),
        Route("/assets/sandbox.css", style),
        route("/token", "token", TokenEndpoint(context), "POST"),
        route("/revoke", "revoke", RevocationEndpoint(context), "POST"),
    ]
    routes += [data_route(*each) for each in ROUTES]
    if settings.jwks:
        routes += [
            route("/.well-known/openid-configuration", "discovery", _discovery(context)),
            route(jwks_path(settings), "jwks", _jwks(context)),
        ]
    if settings.control:
        routes += ControlApi(context, pages).routes()
    return Starlette(routes=routes, exception_handlers={ClientDisconnect: _not_found})


async def _not_found(request: Request, gone: Exception) -> Response:
    """Handle a client that disconnects while its form is read. This is not an error; the response is never sent."""
    return Response(status_code=400)


def _jwks(context: SandboxContext) -> Handler:
    async def jwks(call: Call) -> Response:
        return JSONResponse(context.keys.document())

    return jwks


def _discovery(context: SandboxContext) -> Handler:
    """Return the handler of the discovery document (OpenID Connect Discovery 1.0 section 3)."""

    async def discovery(call: Call) -> Response:
        base, settings = context.base_url(call.request), context.settings
        methods = sorted(settings.code_auth | settings.refresh_auth)
        return JSONResponse(
            {
                "issuer": context.issuer(call.request),
                "authorization_endpoint": f"{base}/auth",
                "token_endpoint": f"{base}/token",
                "revocation_endpoint": f"{base}/revoke",
                "jwks_uri": base + jwks_path(settings),
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [settings.alg],
                "scopes_supported": sorted(SCOPES),
                "token_endpoint_auth_methods_supported": methods,
                "code_challenge_methods_supported": ["S256"],
            }
        )

    return discovery
