"""CSRF protection: the gateway's POST routes accept forms of its own pages only."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.principal import Principal
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError
from akoya_gateway.log import logger
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import SessionStore

log = logger("akoya_gateway.endpoints")


async def form_session(
    principal: Principal, sessions: SessionStore, cookies: GatewayCookies, *, start: bool = True
) -> tuple[Session | None, tuple[tuple[bytes, bytes], ...]]:
    """Return the session whose CSRF token a form needs, and the headers that set its cookie if it is new.

    A user who is known by `identity` may have no session in this browser yet, so one is started if `start` is True.
    Returns None for a user who has no session and is not known.
    """
    if principal.session is not None or not principal.identified or not start:
        return principal.session, ()
    session, value = await sessions.start(principal.owner)
    return session, (cookies.set_session(session, value),)


def require_csrf_token(request: RequestInfo, form: Mapping[str, str], session: Session, public_url: Origin) -> None:
    """Require the session's CSRF token in the form, and a same-origin request as far as the browser reports it.

    Only the token is checked for clients that send neither `Origin` nor Fetch Metadata.

    Raises:
        UserError: The token is wrong or the request comes from another origin (403).
    """
    require_same_origin(request, public_url)
    token = form.get("csrf", "").encode("utf-8", "replace")
    if not hmac.compare_digest(token, session.csrf.reveal().encode()):
        raise _csrf_error(request, "the token is not that of the session")


def require_same_origin(request: RequestInfo, public_url: Origin) -> None:
    """Reject a request if `Origin` or `Sec-Fetch-Site` names another origin.

    Used alone if the request has no session and therefore no CSRF token. A form on another site comes without the
    cookie (SameSite), but the response to it could still delete the cookie.

    A browser sends `Origin: null` with a form of our own page if a proxy in front has added `Referrer-Policy:
    no-referrer` (Fetch section 3.2). `Sec-Fetch-Site: same-origin` then decides: it is `cross-site` for every form of
    another origin, including sandboxed frames.

    Raises:
        UserError: The request comes from another origin (403).
    """
    own = f"{public_url.scheme}://{public_url.authority}".encode()
    origin = request.header(b"origin")
    site = request.header(b"sec-fetch-site")
    if site not in (None, b"same-origin", b"none"):
        raise _csrf_error(request, "Sec-Fetch-Site names another site")
    if origin == b"null" and site == b"same-origin":
        return
    if origin is not None and origin.lower() != own:
        raise _csrf_error(request, "Origin is not that of public_url")


def _csrf_error(request: RequestInfo, reason: str) -> UserError:
    """Return the error for the user, and log the reason. An operator needs it if forms of all users are refused."""
    log.info("form refused", reason=reason, request_id=request.request_id)
    error = UserError(
        "The form is out of date. Go back, reload the page and try again.",
        status=403,
        code="csrf",
        title="That did not work",
    )
    error.is_logged = True
    return error
