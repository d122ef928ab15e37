"""Turns a denial or an error into a response for the client: a redirect, an HTML page, or problem JSON."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from akoya_gateway.access.policy import Deny, DenyReason
from akoya_gateway.access.redirect_policy import RedirectPolicy, RedirectRefused
from akoya_gateway.access.request import RequestInfo, is_navigation, wants_page
from akoya_gateway.config.model import Config, GrantSource
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import RegistrationFault, TemporarilyUnavailable, UnknownGrant, UntrustedResponses
from akoya_gateway.log import logger
from akoya_gateway.responses.languages import Language, gettext_noop
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.problem_texts import (
    CHOOSE_LOGIN,
    CHOOSE_LOGIN_IN_THE_APP,
    CONNECT_BANK,
    RECONNECT_BANK,
    UNNAMED_LOGIN,
)
from akoya_gateway.responses.response import Response, error_headers, problem_response, redirect_response
from akoya_gateway.sessions.gateway_cookies import CookieSentTwice, GatewayCookies
from akoya_gateway.signing.header_values import timestamp

_log = logger(__name__)

_ASCII = "!\"$%&'()*+,/:;<=>?@[\\]^`{|}"
"""Characters that are not escaped, so that `RedirectPolicy.validate` sees them.

Non-ASCII bytes are percent-encoded without interpreting their character set.
"""

_AGAIN = frozenset({DenyReason.RECONNECT, UntrustedResponses.code, TemporarilyUnavailable.code, RegistrationFault.code})
"""Error codes for users who have connected the bank before. Their page says "Connect again"."""


CONNECTIONS = gettext_noop("Your bank connections")
BACK = gettext_noop("Back to the app")
CHOOSE = gettext_noop("Choose a bank")
CONNECT = gettext_noop("Connect")
RECONNECT = gettext_noop("Connect again")
TRY_AGAIN = gettext_noop("Try again")


class ErrorResponder:
    """Builds the responses for denied and failed requests."""

    def __init__(
        self,
        config: Config,
        pages: Pages | None = None,
        redirects: RedirectPolicy | None = None,
        cookies: GatewayCookies | None = None,
    ) -> None:
        self._prefix = config.prefix
        self._home = f"{config.root_path}/"
        self._public = f"{config.public_url.scheme}://{config.public_url.authority}"
        self._names = {key: connector.name for key, connector in config.connectors.items()}
        self._pages = pages or Pages(config)
        self._redirects = redirects or RedirectPolicy(config.public_url, config.redirects.allow)
        self._cookies = cookies or GatewayCookies(config.sessions.cookie, config.limits.attempt_lifetime)

    def denial_response(self, denial: Deny, request: RequestInfo, names: Mapping[str, str] | None = None) -> Response:
        """Return the response for a denied request.

        The status is 403 if no rule allows the request and 404 for an unknown bank. Otherwise it is 302 for a
        navigation, if the rule offers a connection, and 401 with `connect_url` for everything else.

        The status is 400 if the client sent one of the gateway's cookies twice: a connection made now could not be
        found again. It is 404 for a login that is not the owner's, and 409 with the choices if the owner has several.

        Args:
            denial: The decision.
            request: The request.
            names: The names of the owner's logins by grant ID, if `denial` has choices.
        """
        if denial.reason in (DenyReason.NO_RULE, DenyReason.FORBIDDEN):
            return self.error_response(UserError("No access rule allows this request.", status=403, code=denial.reason,
                                        title="Access denied"), request)  # fmt: skip
        if denial.reason is DenyReason.UNKNOWN_CONNECTOR:
            return self.error_response(UserError("No bank of that name is set up.", status=404, code=denial.reason,
                                        title="Unknown bank"), request)  # fmt: skip
        if denial.reason is DenyReason.UNKNOWN_GRANT:
            return self.error_response(UnknownGrant(), request)
        if denial.reason is DenyReason.AMBIGUOUS_GRANT:
            return self._ambiguous(denial, request, names or {})
        try:
            self._cookies.require_once(request.headers)
        except CookieSentTwice as twice:
            return self.error_response(twice, request)
        target = self.connect_path(denial.connectors, request)
        if denial.offer and is_navigation(request):
            return redirect_response(target)
        bank = self._names[denial.connectors[0]] if len(denial.connectors) == 1 else "a bank"
        again = denial.reason is DenyReason.RECONNECT
        error = UserError(
            f"Connect {bank} {'again ' if again else ''}to go on.",
            status=401,
            code=denial.reason,
            title="A bank connection has ended" if again else "A bank connection is needed",
        )
        return self._render(error, request, target, denial.connectors)

    def _ambiguous(self, denial: Deny, request: RequestInfo, names: Mapping[str, str]) -> Response:
        """Return the 409 with the logins to choose from. A page links to the same address with each login."""
        bank = self._names[denial.connectors[0]]
        error = UserError(
            f"You have several logins at {bank}, and this address works with one of them.",
            status=409,
            code=denial.reason,
            title="Which login?",
        )
        if not wants_page(request) or request.websocket:
            choices = [
                {"id": grant.public_id, "name": names.get(grant.id, ""), "since": timestamp(int(grant.connected_at))}
                for grant in denial.choices
            ]
            return problem_response(error, request.request_id, {"choices": choices})
        pages = self._pages.localized(request.accept_language)
        selector = None if denial.rule is None else denial.rule.grant
        links = []
        if selector is not None and selector.source is GrantSource.QUERY and request.method in ("GET", "HEAD"):
            links = [
                {
                    "href": _with_parameter(request, selector.name, grant.public_id),
                    "text": f"{names.get(grant.id, '')} ({pages.language.date(grant.connected_at)})",
                }
                for grant in denial.choices
            ]
        listed = ", ".join(names.get(grant.id, "") for grant in denial.choices)
        message = CHOOSE_LOGIN if links else CHOOSE_LOGIN_IN_THE_APP
        text = pages.language.gettext(message, bank=bank, logins=listed)
        return pages.problem(error.code, error.status, request.request_id, links + self._ways_out(pages.language), text)

    def _ways_out(self, language: Language) -> list[dict[str, str]]:
        return [
            {"href": f"{self._prefix}/", "text": language.gettext(CONNECTIONS)},
            {"href": self._home, "text": language.gettext(BACK)},
        ]

    def unnamed_login(self, request: RequestInfo) -> str:
        """Return what a login without a name is called in the response: in the language of the page, if it is one."""
        if not wants_page(request):
            return UNNAMED_LOGIN
        return self._pages.localized(request.accept_language).language.gettext(UNNAMED_LOGIN)

    def connect_path(self, connectors: tuple[str, ...], request: RequestInfo) -> str:
        """Return the path where the user can connect one of these connectors.

        This is the connect route for a single connector, and the connections page if there is a choice. `return_to` is
        added for GET and HEAD if the redirect policy accepts the path.
        """
        route = f"{self._prefix}/connect/{connectors[0]}" if len(connectors) == 1 else f"{self._prefix}/"
        if request.method not in ("GET", "HEAD") or request.websocket:
            return route
        here = _address(request)
        try:
            return f"{route}?return_to={quote(self._redirects.validate(here), safe='/')}"
        except RedirectRefused as refused:
            if is_navigation(request):
                _log.info("return address dropped", reason=refused.detail, request_id=request.request_id)
            return route

    def error_response(self, error: GatewayError, request: RequestInfo) -> Response:
        """Return the response for an error, with a link to reconnect if the error names a connector."""
        again = error.reconnect
        if again is None:
            response = self._render(error, request, None, ())
        else:
            response = self._render(error, request, self.connect_path((again,), request), (again,))
        if getattr(error, "close", False):
            # The request framing is ambiguous. Close the connection so that the bytes that follow are not parsed as
            # another request.
            response = response.with_headers((b"connection", b"close"))
        return response

    def _render(
        self, error: GatewayError, request: RequestInfo, target: str | None, connectors: tuple[str, ...]
    ) -> Response:
        if not wants_page(request) or request.websocket:
            extra: dict[str, object] = {}
            if target is not None:
                extra = {"connect_url": self._public + target, "connectors": list(connectors)}
            return problem_response(error, request.request_id, extra)
        pages = self._pages.localized(request.accept_language)
        language, text = pages.language, None
        links = self._ways_out(language)
        if target is not None and len(connectors) > 1:
            # The target is the connections page, to which the first link leads as well.
            links[0] = {"href": target, "text": language.gettext(CHOOSE)}
        elif target is not None:
            links.insert(0, {"href": target, "text": language.gettext(RECONNECT if error.code in _AGAIN else CONNECT)})
        if error.status >= 500 and request.method == "GET":
            # An empty link reloads the current URL without writing it into the page: a callback URL contains the code.
            links.insert(0, {"href": "", "text": language.gettext(TRY_AGAIN)})
        if isinstance(error.code, DenyReason) and len(connectors) == 1:
            message = RECONNECT_BANK if error.code is DenyReason.RECONNECT else CONNECT_BANK
            text = language.gettext(message, bank=self._names[connectors[0]])
        page = pages.problem(error.code, error.status, request.request_id, links, text)
        return page.with_headers(*error_headers(error))


def _address(request: RequestInfo) -> str:
    """Return the path and query of the request, percent-encoded where they are not ASCII."""
    return request.raw_path.decode("ascii") + ("?" + quote(request.query, _ASCII) if request.query else "")


def _with_parameter(request: RequestInfo, name: str, value: str) -> str:
    return f"{_address(request)}{'&' if request.query else '?'}{name}={value}"
