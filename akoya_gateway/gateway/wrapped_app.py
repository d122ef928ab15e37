"""Checks that the app which the middleware wraps is ASGI."""

from __future__ import annotations

import inspect
from typing import Any


def require_asgi(app: Any) -> None:
    """Raise TypeError for a WSGI app, which takes two arguments instead of `scope`, `receive` and `send`.

    Such an app would fail on every request. An app whose signature cannot be inspected is accepted.
    """
    try:
        inspect.signature(app).bind("environ", "start_response")
    except (TypeError, ValueError):
        return
    try:
        inspect.signature(app).bind("scope", "receive", "send")
    except TypeError:
        raise TypeError(
            f"{app!r} is a WSGI app, and Gateway wraps ASGI apps: wrap it with a2wsgi.WSGIMiddleware first "
            "(Flask), or use get_asgi_application() instead of get_wsgi_application() (Django)"
        ) from None
