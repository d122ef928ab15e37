"""`GET` of a redirect URI: handles the authorization response when the browser returns from Akoya.

The order of the steps matters (docs/design.md section 1, step 4):

1. The attempt is consumed (single use) before anything in the response is trusted.
2. The session is stored before the code is spent.
3. The grant is stored before the browser gets a response.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.authentication.principal import require_owner
from akoya_gateway.config.model import Config, Connector, SameSite
from akoya_gateway.endpoints.failures import (
    as_gateway_error,
    issuer_facts,
    refusal,
    refusal_facts,
    report,
    tokens_or_raise,
)
from akoya_gateway.endpoints.observer import AuthorizationObserver
from akoya_gateway.endpoints.other_login import OtherLogins
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.oauth.authorization_response import (
    AuthorizationRefused,
    AuthorizationResponse,
    MalformedResponse,
    foreign_issuer,
    parse_authorization_response,
)
from akoya_gateway.provider import Provider
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.response import Response, redirect_response
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.authorization_attempts import (
    AttemptOfOtherBrowser,
    AttemptUnknown,
    AuthorizationAttempt,
    AuthorizationAttempts,
)
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.recovery import Login, SessionRecovery
from akoya_gateway.sessions.session import Session, SessionGone
from akoya_gateway.sessions.session_store import SessionStore


class CallbackEndpoint:
    """Validates the authorization response, exchanges the code and stores the grant."""

    def __init__(
        self,
        config: Config,
        attempts: AuthorizationAttempts,
        sessions: SessionStore,
        recovery: SessionRecovery,
        cookies: GatewayCookies,
        grants: GrantManager,
        providers: Mapping[str, Provider],
        redirects: RedirectPolicy,
        pages: Pages,
        observer: AuthorizationObserver,
        other_logins: OtherLogins,
    ) -> None:
        self._config = config
        self._attempts = attempts
        self._sessions = sessions
        self._recovery = recovery
        self._cookies = cookies
        self._grants = grants
        self._providers = providers
        self._redirects = redirects
        self._pages = pages
        self._observer = observer
        self._other_logins = other_logins
        self._exchanges: set[asyncio.Task[Response]] = set()

    async def __call__(self, request: EndpointRequest) -> Response:
        """Redirect (302) to `return_to` with a new session cookie, or to `redirects.after_error` with `?error=`.

        With `SameSite=Strict` the response is a page that navigates there, because after a redirect the browser would
        send no session cookie, and would be redirected to the bank again and again.

        Raises:
            GatewayError: The callback belongs to no attempt of this browser, so it must not cause a redirect.
        """
        redirect = await self._respond(request)
        is_strict = self._config.sessions.cookie.same_site is SameSite.STRICT
        return self._pages.localized(request.info.accept_language).reload(redirect) if is_strict else redirect

    async def _respond(self, request: EndpointRequest) -> Response:
        callback = parse_authorization_response(request.info.query)
        self._cookies.require_once(request.info.headers)
        if isinstance(callback, MalformedResponse) and callback.state is None:
            error = UserError(f"The address you came back with cannot be read: {callback.reason}.", code="bad-callback")
            report(error, None, request.info.request_id)
            raise error
        attempt = await self._attempt(request, callback)
        connector = self._config.connectors[attempt.connector]
        try:
            code = self._code(request, callback, attempt, connector)
            before = await self._before(request, attempt)
        except GatewayError as error:
            return self._failed(error, attempt, request.info.request_id)
        return await self._on_complete(self._complete(code, request, attempt, connector, before))

    async def finish(self) -> None:
        """Wait until codes in exchange have become grants. Call it just before the providers are closed."""
        while self._exchanges:
            await asyncio.wait(self._exchanges)

    async def _attempt(self, request: EndpointRequest, callback: AuthorizationResponse) -> AuthorizationAttempt:
        """Consume and return the attempt that this browser started. Raises `UserError` for any other state."""
        browser = request.principal.browser
        found = AttemptUnknown() if callback.state is None else await self._attempts.consume(callback.state, browser)
        if isinstance(found, AuthorizationAttempt) and found.connector in self._config.connectors:
            return found
        facts = refusal_facts(callback) if isinstance(callback, AuthorizationRefused) else {}
        error = UserError(
            "This sign-in was already completed, has expired, or was started in another browser. "
            "Nothing was lost: have a look at your bank connections, or start again.",
            code="unknown-state",
            title="This sign-in cannot be completed",
            facts={**facts, "reason": _mismatch(found, browser)},
        )
        self._observer.attempt_ended(None, error.code, request.info.request_id)
        report(error, None, request.info.request_id)
        raise error

    def _code(
        self,
        request: EndpointRequest,
        callback: AuthorizationResponse,
        attempt: AuthorizationAttempt,
        connector: Connector,
    ) -> Secret:
        """Validate all that can be checked without a request to Akoya and return the code. Raises `GatewayError`."""
        if request.scope["path"] != connector.client.callback_path:
            raise UserError("The bank's response arrived at the wrong address.", code="wrong-callback")
        if isinstance(callback, MalformedResponse):
            raise UserError(f"The bank's response cannot be read: {callback.reason}.", code="bad-callback")
        if foreign_issuer(callback, connector.client.environment):
            raise UserError(
                "The response came from another sign-in service.",
                code="foreign-issuer",
                facts=issuer_facts(callback, connector.client.environment),
            )
        if isinstance(callback, AuthorizationRefused):
            raise refusal(callback)
        self._require_same_browser_owner(request, attempt)
        return callback.code

    async def _complete(
        self,
        code: Secret,
        request: EndpointRequest,
        attempt: AuthorizationAttempt,
        connector: Connector,
        before: Session | None,
    ) -> Response:
        """Exchange the code and store the grant.

        Does not raise: once the session has been renewed, a response without the current cookie would leave the
        browser without a session.

        `before` is ended before the code is spent, so that an attacker who has its ID cannot use it any more.
        """
        # If the store cannot save a session, it cannot save the grant either. Detect this before the code is spent.
        try:
            before, session, value = await self._renewed(request, before)
        except Exception as error:
            # The old session is still valid or is being restored (`SessionStore.renew`).
            return self._failed(as_gateway_error(error), attempt, request.info.request_id)
        nonce = None if attempt.nonce is None else attempt.nonce.reveal()
        try:
            outcome = await self._providers[connector.client.name].exchange(code, attempt.code_verifier, nonce)
            self._grants.record_exchange(connector.client, outcome)
            tokens = tokens_or_raise(outcome)
        except Exception as error:
            response = self._failed(as_gateway_error(error), attempt, request.info.request_id)
            return await self._failed_exchange(response, before, session, value)
        client = connector.client
        key = GrantKey(session.owner, client.environment.name, client.name, connector.key, tokens.sub)
        old_ids: tuple[str, ...] = ()
        if attempt.session is not None and before is None and request.principal.owner is None:
            returned = await self._returned(attempt.session, key)
            if returned is not None:
                with contextlib.suppress(Exception):
                    await self._sessions.end(session)
                before, session, value = returned
                old_ids = (attempt.session,)
        cookie = self._cookies.set_session(session, value)
        try:
            known = await self._other_logins.is_known(connector, replace(key, owner=session.owner))
            grant = await self._grants.connect(session.owner, client, connector.key, tokens)
        except Exception as error:
            # Set the cookie in any case: the grant may have been written, and the old ID is no longer valid.
            return self._failed(as_gateway_error(error), attempt, request.info.request_id).with_headers(cookie)
        if before is not None and not request.principal.identified:
            # The grant is stored. The recovery entry is needed only if this response is lost, so ignore errors.
            for session_id in (before.id, *old_ids):
                with contextlib.suppress(Exception):
                    await self._recovery.store(session_id, login_of(key), session)
        self._observer.attempt_ended(attempt.connector, "granted", request.info.request_id)
        target = await self._other_logins.after_connect(connector, grant, attempt.return_to, known=known)
        return redirect_response(target).with_headers(cookie)

    async def _renewed(self, request: EndpointRequest, before: Session | None) -> tuple[Session | None, Session, str]:
        """Renew `before`, or start a session.

        Returns:
            `before` if it was renewed, else None; the renewed or new session; and its cookie value.
        """
        if before is not None:
            try:
                return before, *await self._sessions.renew(before)
            except SessionGone:
                if not request.principal.identified:
                    raise
        return None, *await self._sessions.start(request.principal.owner)

    async def _failed_exchange(
        self, response: Response, before: Session | None, session: Session, value: str
    ) -> Response:
        """Restore the previous session and leave the cookie unchanged, because this response may be lost too."""
        try:
            if before is None:
                await self._sessions.end(session)
            else:
                await self._sessions.take_back(session, before)
        except Exception:
            return response if before is None else response.with_headers(self._cookies.set_session(session, value))
        return response

    async def _returned(self, session_id: str, key: GrantKey) -> tuple[Session, Session, str] | None:
        """Recover the session of an owner who connected this login before but never got the response.

        The browser still sends the old session ID, and the same bank login was used again (`sessions.recovery`).
        Recovery is not possible if the owner has signed out or disconnected that login, if the session has expired,
        or if another bank has been connected in it since.

        Returns:
            The session, the same session under a new ID, and its cookie value. None if no session can be recovered.
        """
        try:
            left = await self._recovery.find(session_id, login_of(key))
            if left is None:
                return None
            grant = replace(key, owner=left.owner).id
            if all(grant != each.id for each in (await self._grants.for_owner(left.owner)).grants):
                return None
            for session in await self._sessions.for_owner(left.owner):
                if session.id == left.session:
                    return session, *await self._sessions.renew(session)
            return None
        except Exception:
            # A failed recovery must not lose the tokens that were just issued.
            return None

    async def _on_complete(self, exchange: Coroutine[Any, Any, Response]) -> Response:
        """Run the exchange in its own task.

        A server may cancel the request when the browser disconnects, but the code is spent by then.
        """
        task = asyncio.create_task(exchange)
        self._exchanges.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, exchange: asyncio.Task[Response]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # Mark it as retrieved: if the request was cancelled, no caller awaits it.

    def _require_same_browser_owner(self, request: EndpointRequest, attempt: AuthorizationAttempt) -> None:
        """Require that the owner has not changed since the attempt started (login CSRF, shared computers)."""
        require_owner(request.principal, self._config.identity)
        owner = request.principal.owner
        if attempt.owner is not None and owner is not None and owner != attempt.owner:
            raise UserError("You signed in as somebody else meanwhile. Connect the bank again.", code="other-owner")
        if request.principal.identified and attempt.owner is None:
            raise UserError("You signed in meanwhile. Connect the bank again.", code="other-owner")

    async def _before(self, request: EndpointRequest, attempt: AuthorizationAttempt) -> Session | None:
        """Return the existing session, which must get a new ID, or None.

        A new ID prevents session fixation: an ID that an attacker planted before must not gain the new grant.

        Raises:
            SessionGone: The session in which the attempt started no longer exists.
        """
        principal = request.principal
        if principal.owner is not None or attempt.owner is None:
            return principal.session
        # SameSite=Strict withholds the session cookie on the redirect from Akoya, so the browser is recognized by the
        # attempt's browser binding. Accept only the session in which the attempt started, not its successor: that one
        # belongs to the user who connected a bank in it, and an attacker who planted the old ID may have started an
        # attempt with it before.
        for session in await self._sessions.for_owner(attempt.owner):
            if session.id == attempt.session:
                return session
        raise SessionGone("Connect the bank again.")

    def _failed(self, error: GatewayError, attempt: AuthorizationAttempt, request_id: str) -> Response:
        """Redirect to `after_error` with the stable error code, the connector and the request ID of the log lines.

        Texts from the bank are left out of the URL. The gateway's own page also gets `return_to`, for a retry.
        """
        self._observer.attempt_ended(attempt.connector, error.code, request_id)
        report(error, attempt.connector, request_id)
        target = self._config.redirects.after_error
        more = {"error": error.code, "connector": attempt.connector, "request_id": request_id}
        if target == f"{self._config.prefix}/":
            more["return_to"] = attempt.return_to
        return redirect_response(f"{target}{'&' if '?' in target else '?'}{urlencode(more, quote_via=quote, safe='/')}")


def _mismatch(found: AuthorizationAttempt | AttemptUnknown | AttemptOfOtherBrowser, browser: str | None) -> str:
    """Return for the log why the callback belongs to no attempt of this browser."""
    if isinstance(found, AuthorizationAttempt):
        return "the connector is no longer configured"
    if browser is None:
        return "the browser sent no cookie of the gateway"
    if isinstance(found, AttemptOfOtherBrowser):
        return "started in another browser, or before this browser got its cookie"
    return "already completed, expired, displaced by later attempts, or never started"


def login_of(key: GrantKey) -> Login:
    """Return the bank login of a grant, regardless of its owner."""
    return key.environment, key.client, key.connector, key.sub
