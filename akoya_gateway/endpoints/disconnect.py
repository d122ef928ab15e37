"""`/akoya/disconnect/{connector}` and `/akoya/logout`: GET shows a confirmation page, POST takes effect."""

from __future__ import annotations

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.csrf import form_session, require_csrf_token, require_same_origin
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.grants.errors import UnknownGrant
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.login_names import LoginNames
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.problem_texts import UNNAMED_LOGIN
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import SessionStore


class DisconnectEndpoint:
    """Disconnects the owner's grants for one connector."""

    def __init__(
        self,
        config: Config,
        grants: GrantManager,
        login_names: LoginNames,
        sessions: SessionStore,
        cookies: GatewayCookies,
        redirects: RedirectPolicy,
        pages: Pages,
        observer: AuthorizationObserver,
    ) -> None:
        self._config = config
        self._grants = grants
        self._login_names = login_names
        self._sessions = sessions
        self._cookies = cookies
        self._redirects = redirects
        self._pages = pages
        self._observer = observer

    async def __call__(self, request: EndpointRequest) -> Response:
        """Show the confirmation page (GET), or disconnect and redirect back (POST, 303).

        The grants are deleted at once and revoked at Akoya. With the parameter `grant`, only that grant is
        disconnected.

        Raises:
            UserError: There is no session (401), the form is not the session's (403), or the owner has no such grant
                (404).
        """
        session, owner, asks = request.principal.session, request.principal.owner, request.method != "POST"
        if owner is None or (session is None and not asks):
            raise UserError(
                "There is nothing to disconnect.", status=401, code="no-session", title="You are signed out"
            )
        if session is None or asks:
            return await self._question(request, owner)
        return await self._disconnect(request, session, owner)

    async def _disconnect(self, request: EndpointRequest, session: Session, owner: str) -> Response:
        form = await request.fields()
        require_csrf_token(request.info, form, session, self._config.public_url)
        wanted = form.get("grant")
        chosen = _chosen(request, await self._grants.for_owner(owner), wanted)
        if wanted is not None and not chosen:
            raise UnknownGrant
        for grant in chosen:
            await self._grants.disconnect(grant)
            self._observer.disconnected(grant.connector)
        target = self._redirects.validate_or(form.get("return_to"), f"{self._config.prefix}/?done=disconnected")
        return redirect_response(target, 303)

    async def _question(self, request: EndpointRequest, owner: str) -> Response:
        """Return the confirmation page, or redirect back (303) if there is nothing to disconnect."""
        parameters = request.parameters()
        wanted, return_to = parameters.get("grant"), self._redirects.validate_or(parameters.get("return_to"), "")
        owner_grants = await self._grants.for_owner(owner)
        chosen = _chosen(request, owner_grants, wanted)
        back = return_to or f"{self._config.prefix}/"
        if not chosen:
            return redirect_response(back, 303)
        session, cookie = await form_session(request.principal, self._sessions, self._cookies)
        key = chosen[0].connector
        connector = self._config.connectors.get(key)
        pages = self._pages.localized(request.info.accept_language)
        names = await self._login_names.names(owner_grants, pages.language.gettext(UNNAMED_LOGIN))
        page = pages.render(
            "disconnect",
            bank=connector.name if connector else key,
            logins=[names[grant.id] for grant in chosen] if len(owner_grants.for_connector(key)) > 1 else [],
            action=f"{self._config.prefix}/disconnect/{key}",
            csrf="" if session is None else session.csrf.reveal(),
            grant=wanted,
            return_to=return_to,
            keep=back,
        )
        # With `no-referrer` a browser sends `Origin: null` with the form, and the CSRF check fails.
        return page.with_headers((b"referrer-policy", b"same-origin"), *cookie)


class LogoutEndpoint:
    """Ends the browser session."""

    def __init__(
        self,
        config: Config,
        grants: GrantManager,
        login_names: LoginNames,
        sessions: SessionStore,
        cookies: GatewayCookies,
        redirects: RedirectPolicy,
        pages: Pages,
    ) -> None:
        self._config = config
        self._grants = grants
        self._login_names = login_names
        self._sessions = sessions
        self._cookies = cookies
        self._redirects = redirects
        self._pages = pages

    async def __call__(self, request: EndpointRequest) -> Response:
        """Show the confirmation page (GET), or end the session, delete the cookie and redirect back (POST, 303).

        The cookie is deleted even if the session is gone, but never for a form of another site.

        Grants of an owner that is known by `identity` are kept. Other grants can be reached through this session only,
        so they are revoked and deleted with it.
        """
        session = request.principal.session
        if request.method != "POST":
            return await self._question(request, session)
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

    async def _question(self, request: EndpointRequest, session: Session | None) -> Response:
        """Return the page that confirms disconnecting all banks.

        If signing out disconnects none, redirect (303) to the page with the sign-out button.
        """
        return_to = self._redirects.validate_or(request.parameters().get("return_to"), "")
        back = return_to or f"{self._config.prefix}/"
        if session is None or request.principal.identified:
            return redirect_response(back, 303)
        owner_grants = await self._grants.for_owner(session.owner)
        if not owner_grants.grants:
            return redirect_response(back, 303)
        pages = self._pages.localized(request.info.accept_language)
        names = await self._login_names.names(owner_grants, pages.language.gettext(UNNAMED_LOGIN))
        page = pages.render(
            "logout",
            banks=[self._bank(grant, names[grant.id]) for grant in owner_grants.grants],
            action=f"{self._config.prefix}/logout",
            csrf=session.csrf.reveal(),
            return_to=return_to,
            keep=back,
        )
        return page.with_headers((b"referrer-policy", b"same-origin"))

    def _bank(self, grant: Grant, login: str) -> str:
        connector = self._config.connectors.get(grant.connector)
        return f"{connector.name if connector else grant.connector}: {login}"


def _chosen(request: EndpointRequest, owner_grants: OwnerGrants, wanted: str | None) -> tuple[Grant, ...]:
    """Return the grants for the connector in the path; only the grant `wanted`, unless that is None."""
    connector = request.path_params["connector"]
    if wanted is None:
        return owner_grants.for_connector(connector)
    found = owner_grants.find(connector, wanted)
    return () if found is None else (found,)
