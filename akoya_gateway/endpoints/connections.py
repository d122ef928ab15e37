"""`GET /akoya/`: the user's connections, as an HTML page for browsers and as JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from akoya_gateway.access.request import wants_page
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Connector
from akoya_gateway.endpoints.csrf import form_session
from akoya_gateway.endpoints.grant_endpoint import SAME_ORIGIN_REFERRER, GrantEndpoint
from akoya_gateway.endpoints.request import EndpointRequest, refuse_unknown
from akoya_gateway.endpoints.user_messages import (
    ACCOUNTS,
    BANK_DOWN,
    CHOOSE_BANK,
    CONNECTED_SINCE,
    LAST_RENEWED,
    NOTICES,
    STATE_TEXTS,
    UNVERIFIED,
    notice_of_error,
)
from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.grant import Grant, GrantState, OwnerGrants
from akoya_gateway.oauth.id_token import account_count
from akoya_gateway.responses.languages import Language
from akoya_gateway.responses.pages import LocalizedPages
from akoya_gateway.responses.response import Response, json_response


@dataclass(frozen=True, slots=True)
class ConnectionsEndpoint(GrantEndpoint):
    """Lists the user's connections and the connectors that are available."""

    clock: Clock
    bank_is_down: Callable[[str], bool]

    async def __call__(self, request: EndpointRequest) -> Response:
        owner = request.principal.owner
        owner_grants = await self.grants.for_owner(owner) if owner is not None else OwnerGrants("")
        # Without grants the page has no form that needs a session.
        session, cookie = await form_session(
            request.principal, self.sessions, self.cookies, start=bool(owner_grants.grants)
        )
        csrf = None if session is None else session.csrf.reveal()
        if wants_page(request.info):
            pages = self.pages.localized(request.info.accept_language)
            names = await self.login_names(owner_grants, pages)
            response = self._page(request, pages, owner_grants, names, csrf)
        else:
            response = json_response(
                self._as_json(owner_grants, await self.grants.login_names.names(owner_grants), csrf)
            )
        return response.with_headers(*cookie)

    def _page(
        self,
        request: EndpointRequest,
        pages: LocalizedPages,
        owner_grants: OwnerGrants,
        names: Mapping[str, str],
        csrf: str | None,
    ) -> Response:
        parameters = request.parameters()
        if "return_to" in parameters:
            refuse_unknown(parameters, "return_to", "error", "connector", "request_id", "done")
        return_to = self.redirects.validate_or(parameters.get("return_to"), "")
        rows = [
            row
            for connector in self.config.connectors.values()
            for row in self._rows(pages, connector, owner_grants, names, return_to)
        ]
        error = notice_of_error(parameters.get("error"))
        failed = self.config.connectors.get(parameters.get("connector", "")) if error else None
        notice = error or NOTICES.get(parameters.get("done", ""), "")
        if not notice and return_to and not any(grant.usable(self.clock()) for grant in owner_grants.grants):
            notice = CHOOSE_BANK
        page = pages.render(
            "connections",
            rows=rows,
            csrf=csrf,
            notice=pages.language.gettext(notice),
            again=None if failed is None else {"name": failed.name, "href": self._connect(failed, return_to)},
            # The URL may be forged, so show the value only if it has the form of a request ID.
            number=_number(parameters.get("request_id", "")) if error else "",
            keeps=request.principal.identified,
            connected=bool(owner_grants.grants),
            # After an error do not link to `return_to`: that page may require the bank that could not be connected.
            back=f"{self.config.root_path}/" if error or not return_to else return_to,
        )
        return page.with_headers(SAME_ORIGIN_REFERRER)

    def _as_json(self, owner_grants: OwnerGrants, names: Mapping[str, str], csrf: str | None) -> dict[str, object]:
        return {
            "connections": [self._summary(grant, names[grant.id]) for grant in owner_grants.grants],
            "available": [
                {"connector": key, "name": connector.name, "connect": f"{self.config.prefix}/connect/{key}"}
                for key, connector in self.config.connectors.items()
            ],
            "csrf": csrf,
        }

    def _summary(self, grant: Grant, login: str) -> dict[str, object]:
        return {
            "id": grant.public_id,
            "connector": grant.connector,
            "name": self.bank(grant.connector),
            "login": login,
            "environment": grant.key.environment,
            "state": grant.state.value,
            "reconnect": f"{self.config.prefix}/connect/{grant.connector}" if self._remedy(grant) else None,
            "connected_at": _moment(grant.connected_at),
            "refreshed_at": _moment(grant.refreshed_at),
            "expires_at": _moment(grant.tokens.expires_at),
            "disconnect": f"{self.config.prefix}/disconnect/{grant.connector}",
            "rename": f"{self.config.prefix}/rename/{grant.connector}",
            # Only if an upstream is a data API: otherwise the gateway does not know whether banks respond.
            **({"bank": "unavailable"} if self.bank_is_down(grant.connector) else {}),
        }

    def _connect(self, connector: Connector, return_to: str) -> str:
        route = f"{self.config.prefix}/connect/{connector.key}"
        return f"{route}?return_to={quote(return_to, safe='/')}" if return_to else route

    def _rows(
        self,
        pages: LocalizedPages,
        connector: Connector,
        owner_grants: OwnerGrants,
        names: Mapping[str, str],
        return_to: str,
    ) -> list[dict[str, object]]:
        connect = self._connect(connector, return_to)
        grants = owner_grants.for_connector(connector.key)
        if not grants:
            return [
                {
                    "name": connector.name,
                    "state": "",
                    "connect": connect,
                    "disconnect": None,
                    "grant": None,
                    "login": None,
                }
            ]
        several = len(grants) > 1
        return [self._row(pages, connector, grant, connect, names[grant.id] if several else None) for grant in grants]

    def _row(
        self, pages: LocalizedPages, connector: Connector, grant: Grant, connect: str, login: str | None
    ) -> dict[str, object]:
        """Return the template data of one connection. `login` is its name if the user has several at the bank."""
        return {
            "name": connector.name,
            "login": login,
            "rename": f"{self.config.prefix}/rename/{connector.key}",
            "state": grant.state.value,
            "words": pages.language.gettext(self._words(grant)),
            "facts": self._facts(grant, pages.language),
            "remedy": self._remedy(grant),
            "connect": connect,
            "disconnect": f"{self.config.prefix}/disconnect/{connector.key}?grant={grant.public_id}",
            "grant": grant.public_id,
        }

    def _words(self, grant: Grant) -> str:
        """Return the text about the grant's state, in English."""
        if not self.grants.offers_reconnect(grant):
            return STATE_TEXTS[grant.state]
        if grant.reason in (Reason.REFUSED_TEMPORARILY, Reason.OPERATOR_FAULT):
            return STATE_TEXTS[GrantState.UNCERTAIN]
        return UNVERIFIED

    def _facts(self, grant: Grant, language: Language) -> list[str]:
        """Return the facts to show about the connection, and a warning if the bank does not respond."""
        down = [language.gettext(BANK_DOWN)] if self.bank_is_down(grant.connector) else []
        return down + _facts(grant, language)

    def _remedy(self, grant: Grant) -> bool:
        """Return whether to offer the user to reconnect the bank."""
        if grant.connector not in self.config.connectors:
            return False
        ended = grant.state in (GrantState.NEEDS_RECONNECT, GrantState.UNCERTAIN)
        return ended or self.grants.offers_reconnect(grant)


def _facts(grant: Grant, language: Language) -> list[str]:
    """Return facts from the grant's record: number of accounts, day of connecting, last renewal."""
    facts = [language.gettext(CONNECTED_SINCE, date=language.date(grant.connected_at))]
    if grant.refreshed_at > grant.connected_at:
        facts.append(language.gettext(LAST_RENEWED, date=language.date(grant.refreshed_at)))
    if (accounts := account_count(grant.tokens.bearer)) is not None:
        facts.insert(0, language.ngettext(*ACCOUNTS, accounts))
    return facts


def _number(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text) else ""


def _moment(seconds: float) -> str:
    """Format a time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
