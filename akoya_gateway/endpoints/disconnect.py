"""`POST /akoya/disconnect/{connector}` and `POST /akoya/logout`."""

from __future__ import annotations

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.csrf import require_own_form, require_own_page
from akoya_gateway.endpoints.observer import Journal
from akoya_gateway.endpoints.request import Visit
from akoya_gateway.errors import UserError
from akoya_gateway.grants.manager import Keeper
from akoya_gateway.responses.response import Answer, redirect
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.sessions.session_store import Sessions


class Disconnect:
    def __init__(self, config: Config, keeper: Keeper, redirects: RedirectPolicy, journal: Journal) -> None:
        self._config = config
        self._keeper = keeper
        self._redirects = redirects
        self._journal = journal

    async def __call__(self, visit: Visit, connector: str) -> Answer:
        """303 back. The owner's grants for the connector are forgotten at once and revoked at Akoya; with a `grant`
        field only that one."""
        session, owner = visit.visitor.session, visit.visitor.owner
        if session is None or owner is None:
            raise UserError(
                "There is nothing to disconnect.", status=401, code="no-session", title="You are signed out"
            )
        form = await visit.form()
        require_own_form(visit.ask, form, session, self._config.public_url)
        wanted = form.get("grant")
        for grant in (await self._keeper.of(owner)).of(connector):
            if wanted in (None, grant.id):
                await self._keeper.disconnect(grant)
                self._journal.disconnected(connector)
        target = self._redirects.judged_or(form.get("return_to"), f"{self._config.prefix}/?done=disconnected")
        return redirect(target, 303)


class Logout:
    def __init__(
        self, config: Config, keeper: Keeper, sessions: Sessions, cookies: CookieJar, redirects: RedirectPolicy
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._sessions = sessions
        self._cookies = cookies
        self._redirects = redirects

    async def __call__(self, visit: Visit) -> Answer:
        """303 back without a session; the cookie is deleted either way, but never for another site's form.

        Grants of an owner that `identity` knows stay. Where the session was all that led to them nobody could ever
        reach them again, so they are revoked and forgotten rather than left behind.
        """
        session = visit.visitor.session
        form = await visit.form()
        if session is None:
            require_own_page(visit.ask, self._config.public_url)
        else:
            require_own_form(visit.ask, form, session, self._config.public_url)
            if not visit.visitor.identified:
                for grant in (await self._keeper.of(session.owner)).grants:
                    await self._keeper.disconnect(grant)
            await self._sessions.end(session)
        target = self._redirects.judged_or(form.get("return_to"), f"{self._config.prefix}/?done=signed-out")
        return redirect(target, 303).with_headers(
            self._cookies.delete_session(),
            # The back button must not show what the session could see.
            (b"clear-site-data", b'"cache"'),
        )
