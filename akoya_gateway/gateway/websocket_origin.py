"""Prevents cross-site WebSocket hijacking, and requests of other sites that could change something at a bank.

Browsers send cookies with a WebSocket handshake from any site (RFC 6455 section 10.2), and with requests of sites that
share the registrable domain even if the cookie is SameSite. No app behind a data API could check that.
"""

from __future__ import annotations

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError


def require_own_origin(
    request: RequestInfo, public_url: Origin, detail: str = "WebSockets are opened from the app's own pages only."
) -> None:
    """Require that `Origin`, if present, is the public origin.

    Browsers always send it with the origin of the script. Other clients send no `Origin`. Raises `UserError` (403).
    """
    origin = request.header(b"origin")
    own = f"{public_url.scheme}://{public_url.authority}".encode()
    if origin is not None and origin.lower() != own:
        raise UserError(detail, status=403, code="foreign-origin")
