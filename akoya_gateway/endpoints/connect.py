"""`GET /akoya/connect/{connector}`: an authorization attempt begins, and the browser goes to Akoya."""

from __future__ import annotations

from collections.abc import Mapping

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.access.request import is_speculative
from akoya_gateway.authentication.principal import require_known
from akoya_gateway.config.model import Config, Connector
from akoya_gateway.endpoints.observer import Journal
from akoya_gateway.endpoints.rate_limit import Pace, sender
from akoya_gateway.endpoints.request import Visit, refuse_unknown
from akoya_gateway.errors import UserError
from akoya_gateway.oauth.authorization_request import authorization_url, code_challenge, code_verifier, new_nonce
from akoya_gateway.responses.response import Answer, redirect
from akoya_gateway.sessions.authorization_attempts import Attempts
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.sessions.session import id_of


class Connect:
    def __init__(
        self,
        config: Config,
        attempts: Attempts,
        redirects: RedirectPolicy,
        cookies: CookieJar,
        journal: Journal,
        pace: Pace,
    ) -> None:
        self._identity = config.identity
        self._connectors: Mapping[str, Connector] = config.connectors
        self._after_connect = config.redirects.after_connect
        self._prefix = config.prefix
        self._attempts = attempts
        self._redirects = redirects
        self._cookies = cookies
        self._journal = journal
        self._pace = pace
        self._trusted = config.trusted_proxies

    async def __call__(self, visit: Visit, key: str) -> Answer:
        """302 to the authorization endpoint; the attempt is in the store before the browser leaves.

        Raises `UserError`: 404 for an unknown connector, 403 for a prefetch, 429 when the client's address begins too
        many, 400 for a `return_to` outside `redirects.allow`, an unknown parameter, or a cookie that came twice.
        """
        connector = self._connectors.get(key)
        if connector is None:
            raise UserError(
                "No bank of that name is set up.", status=404, code="unknown-connector", title="Unknown bank"
            )
        if is_speculative(visit.ask):
            raise UserError("Connecting a bank is not begun ahead of time.", status=403, code="prefetch")
        require_known(visit.visitor, self._identity)
        self._cookies.require_once(visit.ask.headers)
        parameters = visit.parameters()
        refuse_unknown(parameters, "return_to")
        return_to = self._return_to(parameters.get("return_to"))
        self._pace.judge(sender(visit.ask, self._trusted))
        dialect = connector.client.environment.dialect
        verifier = code_verifier() if dialect.pkce else None
        nonce = new_nonce() if dialect.nonce else None
        browser = visit.visitor.browser or self._cookies.new_browser()
        shown = self._cookies.session(visit.ask.headers)
        state = await self._attempts.begin(
            connector=key,
            browser=browser,
            return_to=return_to,
            owner=visit.visitor.owner,
            code_verifier=None if verifier is None else verifier.reveal(),
            nonce=nonce,
            session=None if shown is None else id_of(shown),
        )
        self._journal.attempt_started(key)
        challenge = None if verifier is None else code_challenge(verifier)
        answer = redirect(authorization_url(connector.client, connector, state, challenge, nonce))
        # Set anew each time, so that it outlives this attempt.
        return answer.with_headers(self._cookies.set_browser(browser))

    def _return_to(self, asked: str | None) -> str:
        if asked is None:
            return self._after_connect
        judged = self._redirects.judge(asked)
        if judged.startswith(f"{self._prefix}/") and judged != f"{self._prefix}/":
            # Our own routes are not pages to come back to: connect would start over.
            raise UserError("return_to must be a page of the app.", code="redirect-refused")
        return judged
