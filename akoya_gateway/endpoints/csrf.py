"""No POST of ours is taken from anywhere but our own pages."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.session import Session


def require_csrf_token(request: RequestInfo, form: Mapping[str, str], session: Session, public_url: Origin) -> None:
    """The session's token must be in the form, and what the browser says of the sender must not contradict it.

    Raises `UserError` (403). The token alone decides for clients that send neither `Origin` nor Fetch Metadata.
    """
    require_same_origin(request, public_url)
    token = form.get("csrf", "").encode("utf-8", "replace")
    if not hmac.compare_digest(token, session.csrf.reveal().encode()):
        raise _csrf_error()


def require_same_origin(request: RequestInfo, public_url: Origin) -> None:
    """Nothing that the browser says of the sender names another site. Enough where there is no session to check by:
    on a form of another site SameSite keeps the cookie back, and an answer could still take it away.

    Raises `UserError` (403).
    """
    own = f"{public_url.scheme}://{public_url.authority}".encode()
    origin = request.header(b"origin")
    site = request.header(b"sec-fetch-site")
    if (origin is not None and origin.lower() != own) or site not in (None, b"same-origin", b"none"):
        raise _csrf_error()


def _csrf_error() -> UserError:
    return UserError(
        "The form is out of date. Go back, reload the page and try again.",
        status=403,
        code="csrf",
        title="That did not work",
    )
