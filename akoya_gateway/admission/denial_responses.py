"""From a decision that stops a request to the answer its sender can use: a redirect, a page, or problem JSON."""

from __future__ import annotations

from urllib.parse import quote

from akoya_gateway.access.policy import Stop, Why
from akoya_gateway.access.redirect_policy import RedirectPolicy, RedirectRefused
from akoya_gateway.access.request import Ask, is_navigation, wants_page
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import UntrustedResponses
from akoya_gateway.log import logger
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.response import Answer, headers_of, problem, redirect
from akoya_gateway.sessions.gateway_cookies import CookieJar, CookieSentTwice

_log = logger(__name__)

_ASCII = "!\"$%&'()*+,/:;<=>?@[\\]^`{|}"
"""Left for `RedirectPolicy.judge`; bytes beyond ASCII are encoded as they are, whatever character set they are in."""

_AGAIN = frozenset({Why.RECONNECT, UntrustedResponses.code})
"""Codes for users who have connected the bank before."""


class Refusals:
    def __init__(
        self,
        config: Config,
        pages: Pages | None = None,
        redirects: RedirectPolicy | None = None,
        cookies: CookieJar | None = None,
    ) -> None:
        self._prefix = config.prefix
        self._home = f"{config.root_path}/"
        self._public = f"{config.public_url.scheme}://{config.public_url.authority}"
        self._names = {key: connector.name for key, connector in config.connectors.items()}
        self._pages = pages or Pages(config.prefix)
        self._redirects = redirects or RedirectPolicy(config.public_url, config.redirects.allow)
        self._cookies = cookies or CookieJar(config.sessions.cookie, config.limits.attempt_lifetime)

    def stop(self, stop: Stop, ask: Ask) -> Answer:
        """403 for what no rule allows, 404 for an unknown bank, else 302 (navigation) or 401 with `connect_url`.

        400 if a cookie of ours came twice: nothing that the browser could connect would be found again.
        """
        if stop.why in (Why.NO_RULE, Why.FORBIDDEN):
            return self.error(UserError("No access rule allows this request.", status=403, code=stop.why,
                                        title="Access denied"), ask)  # fmt: skip
        if stop.why is Why.UNKNOWN_CONNECTOR:
            return self.error(UserError("No bank of that name is set up.", status=404, code=stop.why,
                                        title="Unknown bank"), ask)  # fmt: skip
        try:
            self._cookies.require_once(ask.headers)
        except CookieSentTwice as twice:
            return self.error(twice, ask)
        target = self.connect_path(stop.connectors, ask)
        if stop.offer and is_navigation(ask):
            return redirect(target)
        bank = self._names[stop.connectors[0]] if len(stop.connectors) == 1 else "a bank"
        again = stop.why is Why.RECONNECT
        error = UserError(
            f"Connect {bank} {'again ' if again else ''}to go on.",
            status=401,
            code=stop.why,
            title="A bank connection has ended" if again else "A bank connection is needed",
        )
        return self._render(error, ask, target, stop.connectors)

    def connect_path(self, connectors: tuple[str, ...], ask: Ask) -> str:
        """Where to send a user who lacks these: the one connect route, or the connections page for a choice."""
        route = f"{self._prefix}/connect/{connectors[0]}" if len(connectors) == 1 else f"{self._prefix}/"
        if ask.method not in ("GET", "HEAD") or ask.websocket:
            return route
        here = ask.raw_path.decode("ascii") + ("?" + quote(ask.query, _ASCII) if ask.query else "")
        try:
            return f"{route}?return_to={quote(self._redirects.judge(here), safe='/')}"
        except RedirectRefused as refused:
            if is_navigation(ask):
                _log.info("return address dropped", reason=refused.detail, request_id=ask.request_id)
            return route

    def error(self, error: GatewayError, ask: Ask) -> Answer:
        again = error.reconnect if isinstance(error, UntrustedResponses) else None
        if again is None:
            answer = self._render(error, ask, None, ())
        else:
            answer = self._render(error, ask, self.connect_path((again,), ask), (again,))
        if getattr(error, "close", False):
            # The request's framing is in doubt: what follows on that connection must not be read as another.
            answer = answer.with_headers((b"connection", b"close"))
        return answer

    def _render(self, error: GatewayError, ask: Ask, target: str | None, connectors: tuple[str, ...]) -> Answer:
        if not wants_page(ask) or ask.websocket:
            extra: dict[str, object] = {}
            if target is not None:
                extra = {"connect_url": self._public + target, "connectors": list(connectors)}
            return problem(error, ask.request_id, extra)
        links = [
            {"href": f"{self._prefix}/", "text": "Your bank connections"},
            {"href": self._home, "text": "Back to the app"},
        ]
        if target is not None:
            links.insert(0, {"href": target, "text": "Connect again" if error.code in _AGAIN else "Connect"})
        passes = error.status >= 500
        if passes and ask.method == "GET":
            # The address itself, without writing it into the page: a callback's holds the code.
            links.insert(0, {"href": "", "text": "Try again"})
        detail = error.told or ("Please try again in a moment." if passes else "")
        page = self._pages.page("problem", error.status, title=error.title, detail=detail, links=links,
                                request_id=ask.request_id)  # fmt: skip
        return page.with_headers(*headers_of(error))
