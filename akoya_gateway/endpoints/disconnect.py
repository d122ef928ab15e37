"""`POST /akoya/disconnect/{connector}` and `POST /akoya/logout`."""

from __future__ import annotations

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.csrf import require_csrf_token, require_same_origin
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.grants.errors import UnknownGrant
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session_store import SessionStore


class DisconnectEndpoint:
    """Disconnects the owner's grants for one connector."""

    def __init__(
        self, config: Config, grants: GrantManager, redirects: RedirectPolicy, observer: AuthorizationObserver
    ) -> None:
        self._config = config
        self._grants = grants
        self._redirects = redirects
        self._observer = observer

    async def __call__(self, request: EndpointRequest) -> Response:
        """Disconnect the owner's grants for the connector and redirect back (303).

        The grants are deleted at once and revoked at Akoya. If the form has a `grant` field, only that grant is
        disconnected.

        Raises:
            UserError: There is no session (401), the form is not the session's (403), or the owner has no such grant
                (404).
        """
        connector = request.path_params["connector"]
        session, owner = request.principal.session, request.principal.owner
        if session is None or owner is None:
            raise UserError(
                "There is nothing to disconnect.", status=401, code="no-session", title="You are signed out"
            )
        form = await request.fields()
        require_csrf_token(request.info, form, session, self._config.public_url)
        owner_grants = await self._grants.for_owner(owner)
        grants = owner_grants.for_connector(connector)
        if "grant" in form:
            named = owner_grants.find(connector, form["grant"])
            if named is None:
                raise UnknownGrant
            grants = (named,)
        for grant in grants:
            await self._grants.disconnect(grant)
            self._observer.disconnected(connector)
        target = self._redirects.validate_or(form.get("return_to"), f"{self._config.prefix}/?done=disconnected")
        return redirect_response(target, 303)


class LogoutEndpoint:
    """Ends the browser session."""

    def __init__(
        self,
        config: Config,
        grants: GrantManager,
        sessions: SessionStore,
        cookies: GatewayCookies,
        redirects: RedirectPolicy,
    ) -> None:
        self._config = config
        self._grants = grants
        self._sessions = sessions
        self._cookies = cookies
        self._redirects = redirects

    async def __call__(self, request: EndpointRequest) -> Response:
        """End the session, delete the cookie and redirect back (303).

        The cookie is deleted even if the session is gone, but never for a form of another site.

        Grants of an owner that is known by `identity` are kept. Other grants can be reached through this session only,
        so they are revoked and deleted with it.
        """
        session = request.principal.session
        form = await request.fields()
        if session is None:
            require_same_origin(request.info, self._config.public_url)
        else:
            require_csrf_token(request.info, form, session, self._config.public_url)
            if not request.principal.identified:
                for grant in (await self._grants.for_owner(session.owner)).grants:
                    await self._grants.disconnect(grant)
            await self._sessions.end(session)
        target = self._redirects.validate_or(form.get("return_to"), f"{self._config.prefix}/?done=signed-out")
        return redirect_response(target, 303).with_headers(
            self._cookies.delete_session(),
            # The back button must not show pages of the ended session.
            (b"clear-site-data", b'"cache"'),
        )
