"""The ASGI app of the admin listener: `/livez`, `/readyz`, `/metrics`. It is never served on the public port."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from akoya_gateway.observability.admin_host import is_rebound
from akoya_gateway.observability.health import Report
from akoya_gateway.observability.metrics_aggregation import CONTENT_TYPE

JSON = b"application/json"


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        rebound = is_rebound(scope["headers"], (scope.get("server") or (None,))[0])
        if not rebound and self._extra_app is not None and self._extra_app.handles(scope["path"]):
            await self._extra_app(scope, receive, send)
            return
        if rebound and scope["path"] != "/livez":
            status, kind, body = 421, JSON, _json({"error": "use an IP address or localhost in the URL"})
        else:
            status, kind, body = await self._respond(scope["method"], scope["path"])
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _respond(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if path not in ("/livez", "/readyz", "/metrics"):
            return 404, JSON, _json({"paths": ["/livez", "/readyz", "/metrics"]})
        if method not in ("GET", "HEAD"):
            return 405, JSON, _json({"allow": ["GET", "HEAD"]})
        if path == "/livez":
            return 200, JSON, _json({"status": "alive"})
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._stats.metrics_text()
        return self._readiness(await self._stats.reports())

    def _readiness(self, reports: list[Report]) -> tuple[int, bytes, bytes]:
        ready = all(report.ready for report in reports)
        body = {
            "status": "ready" if ready else "not ready",
            "draining": any(report.draining for report in reports),
            "problems": _each_once(problem for report in reports for problem in report.problems),
            "notes": _each_once(note for report in reports for note in report.notes),
            "workers": [asdict(report) for report in reports],
        }
        return 200 if ready else 503, JSON, _json(body)


def _each_once(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
