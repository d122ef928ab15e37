"""`/akoya/disconnect/{connector}` and `/akoya/logout`: GET shows a confirmation page, POST takes effect."""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.endpoints.csrf import form_session, require_csrf_token, require_same_origin
from akoya_gateway.endpoints.grant_endpoint import SAME_ORIGIN_REFERRER, GrantEndpoint
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.grants.errors import UnknownGrant
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.sessions.session import Session


@dataclass(frozen=True, slots=True)
class DisconnectEndpoint(GrantEndpoint):
    """Disconnects the owner's grants for one connector."""

    observer: AuthorizationObserver

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
            return await self._confirmation(request, owner)
        return await self._disconnect(request, session, owner)

    async def _disconnect(self, request: EndpointRequest, session: Session, owner: str) -> Response:
        form = await request.fields()
        require_csrf_token(request.info, form, session, self.config.public_url)
        wanted = form.get("grant")
        chosen = _chosen(request, await self.grants.for_owner(owner), wanted)
        if wanted is not None and not chosen:
            raise UnknownGrant
        for grant in chosen:
            await self.grants.disconnect(grant)
            self.observer.disconnected(grant.connector)
        target = self.done(form.get("return_to"), "disconnected")
        return redirect_response(target, 303)

    async def _confirmation(self, request: EndpointRequest, owner: str) -> Response:
        """Return the confirmation page, or redirect back (303) if there is nothing to disconnect."""
        parameters = request.parameters()
        wanted, return_to = parameters.get("grant"), self.redirects.validate_or(parameters.get("return_to"), "")
        owner_grants = await self.grants.for_owner(owner)
        chosen = _chosen(request, owner_grants, wanted)
        back = return_to or f"{self.config.prefix}/"
        if not chosen:
            return redirect_response(back, 303)
        session, cookie = await form_session(request.principal, self.sessions, self.cookies)
        key = chosen[0].connector
        pages = self.pages.localized(request.info.accept_language)
        names = await self.login_names(owner_grants, pages)
        page = pages.render(
            "disconnect",
            bank=self.bank(key),
            logins=[names[grant.id] for grant in chosen] if len(owner_grants.for_connector(key)) > 1 else [],
            action=f"{self.config.prefix}/disconnect/{key}",
            csrf="" if session is None else session.csrf.reveal(),
            grant=wanted,
            return_to=return_to,
            keep=back,
        )
        return page.with_headers(SAME_ORIGIN_REFERRER, *cookie)


class LogoutEndpoint(GrantEndpoint):
    """Ends the browser session."""

    async def __call__(self, request: EndpointRequest) -> Response:
        """Show the confirmation page (GET), or end the session, delete the cookie and redirect back (POST, 303).

        The cookie is deleted even if the session is gone, but never for a form of another site.

        Grants of an owner who is identified by `identity` are kept. Other grants can be reached only through this
        session, so they are revoked and deleted with it.
        """
        session = request.principal.session
        if request.method != "POST":
            return await self._confirmation(request, session)
        form = await request.fields()
        if session is None:
            require_same_origin(request.info, self.config.public_url)
        else:
            require_csrf_token(request.info, form, session, self.config.public_url)
            if not request.principal.identified:
                for grant in (await self.grants.for_owner(session.owner)).grants:
                    await self.grants.disconnect(grant)
            await self.sessions.end(session)
        target = self.done(form.get("return_to"), "signed-out")
        return redirect_response(target, 303).with_headers(
            self.cookies.delete_session(),
            # The back button must not show pages of the ended session.
            (b"clear-site-data", b'"cache"'),
        )

    async def _confirmation(self, request: EndpointRequest, session: Session | None) -> Response:
        """Return the page that confirms disconnecting all banks.

        If signing out disconnects none, redirect (303) to the page with the sign-out button.
        """
        return_to = self.redirects.validate_or(request.parameters().get("return_to"), "")
        back = return_to or f"{self.config.prefix}/"
        if session is None or request.principal.identified:
            return redirect_response(back, 303)
        owner_grants = await self.grants.for_owner(session.owner)
        if not owner_grants.grants:
            return redirect_response(back, 303)
        pages = self.pages.localized(request.info.accept_language)
        names = await self.login_names(owner_grants, pages)
        page = pages.render(
            "logout",
            banks=[f"{self.bank(grant.connector)}: {names[grant.id]}" for grant in owner_grants.grants],
            action=f"{self.config.prefix}/logout",
            csrf=session.csrf.reveal(),
            return_to=return_to,
            keep=back,
        )
        return page.with_headers(SAME_ORIGIN_REFERRER)


def _chosen(request: EndpointRequest, owner_grants: OwnerGrants, wanted: str | None) -> tuple[Grant, ...]:
    """Return the grants for the connector in the path; only the grant `wanted`, unless that is None."""
    connector = request.path_params["connector"]
    if wanted is None:
        return owner_grants.for_connector(connector)
    found = owner_grants.find(connector, wanted)
    return () if found is None else (found,)
