"""The ASGI app of the admin listener: `/livez`, `/readyz`, `/metrics`. It is never served on the public port."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from akoya_gateway.observability.admin_host import is_rebound
from akoya_gateway.observability.health import Report
from akoya_gateway.observability.metrics_aggregation import CONTENT_TYPE


class StatsSource(Protocol):
    """Source of metrics and readiness reports. Implemented by `worker_stats.WorkerStats`."""

    def metrics_text(self) -> bytes: ...

    async def reports(self) -> list[Report]: ...


class ExtraApp(Protocol):
    """An ASGI app that serves additional paths."""

    def handles(self, path: str) -> bool: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class AdminApp:
    """ASGI app. `/livez` returns 200 whenever the event loop runs; `/readyz` returns 200, or 503 with the reasons."""

    def __init__(self, stats: StatsSource, extra_app: ExtraApp | None = None) -> None:
        """Serve `stats`, and `extra_app` for the paths that it handles."""
        self._stats = stats
        self._extra_app = extra_app
        routes = [Route("/livez", _livez), Route("/readyz", self._readyz), Route("/metrics", self._metrics)]
        self._app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _method_not_allowed})
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app: ASGIApp = self._app
        if is_rebound(scope["headers"], (scope.get("server") or (None,))[0]):
            if scope["path"] != "/livez":
                app = _json({"error": "use an IP address or localhost in the URL"}, 421)
        elif self._extra_app is not None and self._extra_app.handles(scope["path"]):
            app = self._extra_app
        await app(scope, receive, send)

    async def _metrics(self, _: Request) -> Response:
        return Response(self._stats.metrics_text(), headers=_NOT_STORED, media_type=CONTENT_TYPE)

    async def _readyz(self, _: Request) -> Response:
        reports = await self._stats.reports()
        ready = all(report.ready for report in reports)
        body = {
            "status": "ready" if ready else "not ready",
            "draining": any(report.draining for report in reports),
            "problems": _each_once(problem for report in reports for problem in report.problems),
            "notes": _each_once(note for report in reports for note in report.notes),
            "workers": [asdict(report) for report in reports],
        }
        return _json(body, 200 if ready else 503)


async def _livez(_: Request) -> Response:
    return _json({"status": "alive"})


async def _not_found(_: Request, __: Exception) -> Response:
    return _json({"paths": ["/livez", "/readyz", "/metrics"]}, 404)


async def _method_not_allowed(_: Request, __: Exception) -> Response:
    # Not the exception's `Allow`: it lists the methods in any order.
    return _json({"allow": ["GET", "HEAD"]}, 405, {"allow": "GET, HEAD"})


def _each_once(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


_NOT_STORED = {"cache-control": "no-store"}


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response that ends with a line break, for terminals."""
    headers = {**_NOT_STORED, **(headers or {})}
    return Response(json.dumps(value) + "\n", status, headers, "application/json")
