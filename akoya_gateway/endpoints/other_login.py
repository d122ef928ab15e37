"""Ends or keeps a login when its bank is connected again with another one (`connectors.*.other_login`).

Another login at a bank has another `sub`, and with the old grant the accounts of the old login would become unreachable
(docs/akoya.md section 7). The new grant is always stored first. Only then is the old one ended (`replace`), or the user
asked whether to end it (`ask`). Both are kept until the user has decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from akoya_gateway.config.model import Config, Connector, OtherLogin
from akoya_gateway.endpoints.csrf import require_csrf_token
from akoya_gateway.endpoints.failures import as_gateway_error
from akoya_gateway.endpoints.grant_endpoint import SAME_ORIGIN_REFERRER, GrantEndpoint
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.log import logger
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.sessions.session import Session

log = logger("akoya_gateway.endpoints")

ROUTE = "other-login"


class OtherLogins:
    """Applies `other_login` after a login has been connected."""

    def __init__(self, config: Config, grants: GrantManager, observer: AuthorizationObserver) -> None:
        self._config = config
        self._grants = grants
        self._observer = observer

    async def is_known(self, connector: Connector, key: GrantKey) -> bool:
        """Return True if the owner has connected this login before, or if it does not matter.

        Does not raise: the tokens have been issued and must be stored next.
        """
        if connector.other_login is not OtherLogin.ASK:
            return True
        try:
            return any(grant.key == key for grant in (await self._grants.for_owner(key.owner)).grants)
        except Exception as error:
            as_gateway_error(error)  # Logs a bug.
            return False

    async def after_connect(self, connector: Connector, grant: Grant, return_to: str, *, known: bool) -> str:
        """End or keep the owner's other logins at this bank, and return where the browser goes next.

        Does not raise: the new grant is stored, and keeping both logins loses nothing.
        """
        if connector.other_login is OtherLogin.ADD:
            return return_to
        try:
            others = others_of(grant, await self._grants.for_owner(grant.key.owner))
            if connector.other_login is OtherLogin.REPLACE:
                for other in others:
                    await self._grants.disconnect(other)
                    self._observer.disconnected(connector.key)
            elif others and not known:
                page = f"{self._config.prefix}/{ROUTE}/{connector.key}"
                return f"{page}?grant={grant.public_id}&return_to={quote(return_to, safe='/')}"
        except Exception as error:
            code = as_gateway_error(error).code
            log.warning("other login kept", grant=grant.public_id, connector=connector.key, error=code)
        return return_to


@dataclass(frozen=True, slots=True)
class OtherLoginEndpoint(GrantEndpoint):
    """`GET` shows a page that asks whether to end the earlier logins at a bank; `POST` applies the user's choice.

    The page is built from the owner's grants, so it can be reloaded and two tabs can be open. Its form ends only the
    logins that the page showed.
    """

    observer: AuthorizationObserver

    async def __call__(self, request: EndpointRequest) -> Response:
        """Return the page, or a redirect (303) if there are no earlier logins left.

        Raises:
            UserError: There is no session (401), the form is not the session's (403), the new login has ended (409), or
                there is no such bank (404).
        """
        session, owner = request.principal.session, request.principal.owner
        connector = self.config.connectors.get(request.path_params["connector"])
        if connector is None:
            raise UserError("There is no such page.", status=404, code="not-found", title="Not found")
        if session is None or owner is None:
            raise UserError("Nothing was changed.", status=401, code="no-session", title="You are signed out")
        owner_grants = await self.grants.for_owner(owner)
        if request.method == "POST":
            return await self._apply_choice(request, session, connector, owner_grants)
        return await self._choice_page(request, session, connector, owner_grants)

    async def _choice_page(
        self, request: EndpointRequest, session: Session, connector: Connector, owner_grants: OwnerGrants
    ) -> Response:
        parameters = request.parameters()
        return_to = self._target(parameters.get("return_to"))
        new = owner_grants.find(connector.key, parameters.get("grant"))
        others = () if new is None else others_of(new, owner_grants)
        if new is None or not others:
            return redirect_response(return_to, 303)
        pages = self.pages.localized(request.info.accept_language)
        names = await self.login_names(owner_grants, pages)
        page = pages.render(
            "other_login",
            bank=connector.name,
            new=names[new.id],
            old=[names[other.id] for other in others],
            action=f"{self.config.prefix}/{ROUTE}/{connector.key}",
            csrf=session.csrf.reveal(),
            grant=new.public_id,
            ids=" ".join(other.public_id for other in others),
            return_to=return_to,
        )
        return page.with_headers(SAME_ORIGIN_REFERRER)

    async def _apply_choice(
        self, request: EndpointRequest, session: Session, connector: Connector, owner_grants: OwnerGrants
    ) -> Response:
        form = await request.fields()
        require_csrf_token(request.info, form, session, self.config.public_url)
        if form.get("answer") == "end":
            new = owner_grants.find(connector.key, form.get("grant"))
            if new is None or new.state is GrantState.NEEDS_RECONNECT:
                raise UserError(
                    "The new login has ended in the meantime, so the earlier one was kept.",
                    status=409,
                    code="login-ended",
                    title="Nothing was changed",
                )
            shown = form.get("logins", "").split()
            for other in others_of(new, owner_grants):
                if other.public_id in shown:
                    await self.grants.disconnect(other)
                    self.observer.disconnected(connector.key)
        return redirect_response(self._target(form.get("return_to")), 303)

    def _target(self, return_to: str | None) -> str:
        return self.redirects.validate_or(return_to, self.config.redirects.after_connect)


def others_of(grant: Grant, owner_grants: OwnerGrants) -> tuple[Grant, ...]:
    """Return the owner's other logins at the same bank, with the same client and environment."""
    key = grant.key
    return tuple(
        other
        for other in owner_grants.for_connector(key.connector)
        if other.key.sub != key.sub and (other.key.environment, other.key.client) == (key.environment, key.client)
    )
