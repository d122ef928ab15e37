"""The control API under `/_sandbox/`: tests change and inspect the emulator with JSON. Requires `control=True`.

POST bodies must be `application/json`, so that a page of another origin cannot send them from a browser without a CORS
preflight.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from akoya_gateway.sandbox.consent_pages import ConsentPages
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.fault_injection import Fault

Document = dict[str, Any]


class ControlApi:
    """The routes under `/_sandbox/`."""

    def __init__(self, context: SandboxContext, pages: ConsentPages) -> None:
        self._context = context
        self._pages = pages

    def routes(self) -> list[Route]:
        posts: dict[str, Callable[[Document], Any]] = {
            "faults": self._add_fault,
            "reset": self._reset,
            "consent": self._consent,
            "revoke-consent": self._revoke_consent,
            "clock": self._advance,
            "keys/rotate": self._rotate_keys,
            "client": self._change_client,
        }
        return [
            Route("/_sandbox/events", self._events, methods=["GET"]),
            Route("/_sandbox/counters", self._counters, methods=["GET"]),
            Route("/_sandbox/grants", self._grants, methods=["GET"]),
            Route("/_sandbox/faults", self._faults, methods=["GET"]),
            Route("/_sandbox/faults", self._clear_faults, methods=["DELETE"]),
            *(Route(f"/_sandbox/{path}", _json_endpoint(do), methods=["POST"]) for path, do in posts.items()),
        ]

    async def _events(self, request: Request) -> Response:
        """Return the recorded events. `?what=token&after=N` selects those of one kind and after number N."""
        what, after = request.query_params.get("what"), request.query_params.get("after", "0")
        newest = int(after) if after.isascii() and after.isdigit() else 0
        events = [e for e in self._context.state.events if e["n"] > newest and what in (None, e["what"])]
        return JSONResponse({"events": events})

    async def _counters(self, request: Request) -> Response:
        return JSONResponse({"counters": dict(self._context.state.counters)})

    async def _grants(self, request: Request) -> Response:
        names = ("grant_id", "client_id", "connector", "user", "ended")
        consents = self._context.state.consents.values()
        return JSONResponse({"grants": [{name: getattr(given, name) for name in names} for given in consents]})

    async def _faults(self, request: Request) -> Response:
        return JSONResponse({"faults": self._context.faults.documents()})

    async def _clear_faults(self, request: Request) -> Response:
        self._context.faults.clear()
        return JSONResponse({})

    def _add_fault(self, body: Document) -> Document:
        fault = Fault.parse(body)
        self._context.faults.add(fault)
        return fault.document()

    def _reset(self, body: Document) -> Document:
        self._context.reset()
        return {}

    def _consent(self, body: Document) -> Document:
        url, user = _text(body, "url"), str(body.get("user", "mikomo_1"))
        accounts = body.get("accounts")
        if accounts is not None and not isinstance(accounts, list):
            raise ValueError("accounts is not a list")
        return {"location": self._pages.headless(urlsplit(url).query, user, accounts)}

    def _revoke_consent(self, body: Document) -> Document:
        """End consents as a customer does in the bank's portal: by `grant_id`, or all of `user` (and `connector`)."""
        grant_id, user, connector = body.get("grant_id"), body.get("user"), body.get("connector")
        if grant_id is None and user is None:
            raise ValueError("give grant_id or user")
        code = body.get("code", 602)
        if code not in (601, 602):
            raise ValueError("code is 601 or 602")
        ended = [
            given
            for given in self._context.state.consents.values()
            if given.ended is None
            and grant_id in (None, given.grant_id)
            and user in (None, given.user)
            and connector in (None, given.connector)
        ]
        for given in ended:
            self._context.state.end(given, "customer", code)
        return {"ended": [given.grant_id for given in ended]}

    def _advance(self, body: Document) -> Document:
        seconds = body.get("advance")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ValueError("advance is a number of seconds")
        self._context.state.clock_offset += seconds
        return {"now": self._context.now()}

    def _rotate_keys(self, body: Document) -> Document:
        return {"kid": self._context.keys.rotate(keep_old=body.get("keep_old", True) is True)}

    def _change_client(self, body: Document) -> Document:
        """Change a client: `client_secret` replaces the secret at once, `redirect_uri` registers another URI."""
        state, client_id = self._context.state, _text(body, "client_id")
        if client_id not in state.clients:
            raise ValueError(f"no client {client_id!r}")
        if "client_secret" in body:
            state.change_secret(client_id, _text(body, "client_secret"))
        if "redirect_uri" in body:
            state.register_redirect_uri(client_id, _text(body, "redirect_uri"))
        return {"redirect_uris": list(state.clients[client_id].redirect_uris)}


def _text(body: Document, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    return value


def _json_endpoint(do: Callable[[Document], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JSONResponse({"error": "send application/json"}, 415)
        try:
            body = json.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise ValueError("send a JSON object")
            return JSONResponse(do(body))
        except ValueError as fault:
            return JSONResponse({"error": str(fault)}, 400)

    return endpoint
