"""The same app in each framework, with the integrations of akoya-verify. Imports nothing of the gateway.

Every app has `/seen`, which any request may reach, and returns `Akoya-Owner` as an unsuspecting view reads it;
`/mikomo`, which needs a connection to that bank; and `/optional`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import django
from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from fastapi import Depends, FastAPI, Request, WebSocket
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from akoya_verify import AsgiVerifier, KeySource, Verified
from akoya_verify.fastapi import add_akoya, current_connection
from akoya_verify.flask import Akoya
from akoya_verify.flask import current_connection as current_flask_connection
from akoya_verify.starlette import AkoyaBackend, requires_connection

if not settings.configured:
    settings.configure(
        SECRET_KEY="for-tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.frameworks.django_urls",
        MIDDLEWARE=["akoya_verify.django.AkoyaMiddleware"],
        INSTALLED_APPS=["akoya_verify.django"],
        AKOYA={"IN_PROCESS": True},
        LOGGING_CONFIG=None,
    )
    django.setup()


def to_json(connection: Verified | None) -> dict[str, Any]:
    return {"owner": connection and connection.owner, "token": connection and connection.id_token}


def starlette_app(keys: KeySource | None) -> Starlette:
    async def seen(request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"owner": request.headers.get("akoya-owner"), "user": request.user.display_name})

    @requires_connection("mikomo")
    def mikomo(request: StarletteRequest) -> JSONResponse:
        return JSONResponse(to_json(request.state.akoya))

    async def optional(request: StarletteRequest) -> JSONResponse:
        return JSONResponse(to_json(getattr(request.user, "connection", None)))

    @requires_connection("mikomo")
    async def socket(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(to_json(websocket.state.akoya))
        await websocket.close()

    return Starlette(
        routes=[
            Route("/seen", seen),
            Route("/mikomo", mikomo),
            Route("/optional", optional),
            WebSocketRoute("/socket", socket),
        ],
        middleware=[
            Middleware(AsgiVerifier, keys=keys, required=False),
            Middleware(AuthenticationMiddleware, backend=AkoyaBackend()),
        ],
    )


def fastapi_app(keys: KeySource | None) -> FastAPI:
    app = FastAPI()
    add_akoya(app, keys)

    @app.get("/seen")
    def seen(request: Request) -> dict[str, Any]:
        return {"owner": request.headers.get("akoya-owner")}

    @app.get("/mikomo")
    def mikomo(bank: Mikomo) -> dict[str, Any]:
        return to_json(bank)

    @app.get("/optional")
    def optional(
        bank: Annotated[Verified | None, Depends(current_connection("mikomo", optional=True))],
    ) -> dict[str, Any]:
        return to_json(bank)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, bank: Mikomo) -> None:
        await websocket.accept()
        await websocket.send_json(to_json(bank))
        await websocket.close()

    return app


Mikomo = Annotated[Verified, Depends(current_connection("mikomo"))]


def flask_app(keys: KeySource | None) -> Flask:
    app = Flask("tests.frameworks")
    Akoya(app, keys, exempt={"/exempt"})

    @app.get("/seen")
    @app.get("/exempt")
    def seen() -> dict[str, Any]:
        return {"owner": flask_request.headers.get("Akoya-Owner")}

    @app.get("/mikomo")
    def mikomo() -> dict[str, Any]:
        return to_json(current_flask_connection("mikomo"))

    @app.get("/optional")
    def optional() -> dict[str, Any]:
        return to_json(current_flask_connection("mikomo", optional=True))

    return app


def flask_in_asgi(keys: KeySource | None) -> Any:
    app: Any = flask_app(keys)
    return WSGIMiddleware(app)


def django_app(handler: Callable[[], Any], keys: KeySource | None, **setting: Any) -> Any:
    given = {"IN_PROCESS": True} if keys is None else {"KEYS": keys}
    with override_settings(AKOYA={**given, "EXEMPT": ["/exempt", "/exempt/*"], **setting}):
        return handler()


ASGI: dict[str, Callable[[KeySource | None], Any]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "django-asgi": lambda keys: django_app(ASGIHandler, keys),
    "flask-a2wsgi": flask_in_asgi,
}
WSGI: dict[str, Callable[[KeySource | None], Any]] = {
    "flask": flask_app,
    "django-wsgi": lambda keys: django_app(WSGIHandler, keys),
}
STRICT = {"django-asgi", "django-wsgi", "flask", "flask-a2wsgi"}
"""The apps that refuse every unsigned request. In the others each view decides."""
