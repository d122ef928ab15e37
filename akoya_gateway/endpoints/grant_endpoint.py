"""What the endpoints that show or change a user's bank connections have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.config.model import Config
from akoya_gateway.grants.grant import OwnerGrants
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.responses.pages import LocalizedPages, Pages
from akoya_gateway.responses.problem_texts import UNNAMED_LOGIN
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session_store import SessionStore

SAME_ORIGIN_REFERRER = (b"referrer-policy", b"same-origin")
"""For pages with forms: with `no-referrer` a browser sends `Origin: null` with a form, and the CSRF check fails."""


@dataclass(frozen=True, slots=True)
class GrantEndpoint:
    """Base of the endpoints that show or change the grants of a user."""

    config: Config
    grants: GrantManager
    sessions: SessionStore
    cookies: GatewayCookies
    redirects: RedirectPolicy
    pages: Pages

    def bank(self, connector: str) -> str:
        """Return the bank's name, or the connector's key if it is no longer configured."""
        configured = self.config.connectors.get(connector)
        return configured.name if configured else connector

    async def login_names(self, owner_grants: OwnerGrants, pages: LocalizedPages) -> Mapping[str, str]:
        """Return the names of the owner's logins by grant ID, in the language of the pages."""
        return await self.grants.login_names.names(owner_grants, pages.language.gettext(UNNAMED_LOGIN))

    def done(self, return_to: str | None, notice: str) -> str:
        """Return the redirect target after a form: `return_to` if it is allowed, else the connections with a notice."""
        return self.redirects.validate_or(return_to, f"{self.config.prefix}/?done={notice}")
