"""Prevents cross-site WebSocket hijacking.

Browsers send cookies with a WebSocket handshake from any site (RFC 6455 section 10.2).
"""

from __future__ import annotations

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError


def require_own_origin(request: RequestInfo, public_url: Origin) -> None:
    """Require that `Origin`, if present, is the public origin.

    Browsers always send it with the origin of the script. Other clients send no `Origin`. Raises `UserError` (403).
    """
    origin = request.header(b"origin")
    own = f"{public_url.scheme}://{public_url.authority}".encode()
    if origin is not None and origin.lower() != own:
        raise UserError("WebSockets are opened from the app's own pages only.", status=403, code="foreign-origin")
