"""`GET /akoya/connect/{connector}`: starts an authorization attempt and redirects the browser to Akoya."""

from __future__ import annotations

from collections.abc import Mapping

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.access.request import is_speculative
from akoya_gateway.authentication.principal import require_owner
from akoya_gateway.config.model import Config, Connector
from akoya_gateway.endpoints.callback_host import CallbackHost
from akoya_gateway.endpoints.failures import report
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.rate_limit import RateLimiter, client_key
from akoya_gateway.endpoints.request import EndpointRequest, refuse_unknown
from akoya_gateway.errors import UserError
from akoya_gateway.oauth.authorization_request import authorization_url, code_challenge, code_verifier, new_nonce
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.sessions.authorization_attempts import AuthorizationAttempts
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session import id_of


class ConnectEndpoint:
    """Starts authorization attempts."""

    def __init__(
        self,
        config: Config,
        attempts: AuthorizationAttempts,
        redirects: RedirectPolicy,
        cookies: GatewayCookies,
        observer: AuthorizationObserver,
        rate_limiter: RateLimiter,
    ) -> None:
        self._identity = config.identity
        self._connectors: Mapping[str, Connector] = config.connectors
        self._after_connect = config.redirects.after_connect
        self._prefix = config.prefix
        self._attempts = attempts
        self._redirects = redirects
        self._cookies = cookies
        self._observer = observer
        self._rate_limiter = rate_limiter
        self._trusted_proxies = config.trusted_proxies
        self._callback_host = CallbackHost(config.trusted_proxies)

    async def __call__(self, request: EndpointRequest) -> Response:
        """Redirect (302) to the authorization endpoint. The attempt is stored before the redirect is sent.

        Raises:
            UserError: The connector is unknown (404), the request is a prefetch (403), the client address starts too
                many attempts (429), `return_to` is outside `redirects.allow`, a parameter is unknown, or a cookie
                occurs twice (400).
        """
        key = request.path_params["connector"]
        connector = self._connectors.get(key)
        if connector is None:
            raise UserError(
                "No bank of that name is set up.", status=404, code="unknown-connector", title="Unknown bank"
            )
        try:
            return await self._start(request, key, connector)
        except UserError as error:
            # The page names no reason, and the user cannot correct a link of the app.
            report(error, key, request.info.request_id)
            raise

    async def _start(self, request: EndpointRequest, key: str, connector: Connector) -> Response:
        if is_speculative(request.info):
            raise UserError("A prefetch or preview request cannot connect a bank.", status=403, code="prefetch")
        require_owner(request.principal, self._identity)
        self._cookies.require_once(request.info.headers)
        parameters = request.parameters()
        refuse_unknown(parameters, "return_to")
        return_to = self._return_to(parameters.get("return_to"))
        self._rate_limiter.check(client_key(request.info, self._trusted_proxies))
        self._callback_host.check(request.info, connector.client.redirect_uri)
        dialect = connector.client.environment.dialect
        verifier = code_verifier() if dialect.pkce else None
        nonce = new_nonce() if dialect.nonce else None
        browser = request.principal.browser or self._cookies.new_browser()
        session_cookie = self._cookies.session(request.info.headers)
        state = await self._attempts.begin(
            connector=key,
            browser=browser,
            return_to=return_to,
            owner=request.principal.owner,
            code_verifier=None if verifier is None else verifier.reveal(),
            nonce=nonce,
            session=None if session_cookie is None else id_of(session_cookie),
        )
        self._observer.attempt_started(key)
        challenge = None if verifier is None else code_challenge(verifier)
        response = redirect_response(authorization_url(connector.client, connector, state, challenge, nonce))
        # Set the cookie on each attempt, so that it does not expire before the attempt.
        return response.with_headers(self._cookies.set_browser(browser))

    def _return_to(self, requested: str | None) -> str:
        if requested is None:
            return self._after_connect
        validated = self._redirects.validate(requested)
        if validated.startswith(f"{self._prefix}/") and validated != f"{self._prefix}/":
            # Reject the gateway's own routes as return addresses: connect, for example, would start another attempt.
            raise UserError("return_to must be a page of the app.", code="redirect-refused")
        return validated
