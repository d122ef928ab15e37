"""The consent pages: sign-in at the bank, its terms, account selection at Akoya, approval or cancellation.

Cancelling on the bank's pages shows Akoya's "Connection Issue" page, and the app is notified only if the user cancels
there again. Cancelling on the account selection notifies the app at once (docs/akoya.md section 3, consent-flow
outcomes).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, RedirectResponse, Response

from akoya_gateway.sandbox import demo_users, tokens
from akoya_gateway.sandbox.authorization_endpoint import SentError, ShownError, validate_request, with_query
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.endpoint import Call
from akoya_gateway.sandbox.state import AuthorizationRequest, Login

_TEMPLATES = Path(__file__).parent / "templates"
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Cuts the connection to the window that opened this one, as many banks do.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class ConsentPages:
    """`GET /auth` and everything under `/consent/{login}`."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
        )

    async def authorize(self, call: Call) -> Response:
        """Handle `GET /auth`: start a login, or show or send the error."""
        context = self._context
        parsed = validate_request(context, call.request.url.query)
        if isinstance(parsed, ShownError):
            call.event = context.state.record(context.now(), "authorization", "shown_error", status=parsed.status)
            return self._error(parsed.status, parsed.text)
        if isinstance(parsed, SentError):
            call.event = context.state.record(context.now(), "authorization", "sent_error", error=parsed.error)
            return _go(parsed.location())
        login = self._begin(parsed)
        call.event = context.state.record(
            context.now(), "authorization", "begun", client_id=parsed.client.client_id, connector=parsed.connector
        )
        return _go(f"/consent/{login.id}/login")

    async def index(self, request: object) -> Response:
        """Handle `GET /`: explain the emulator to a user who opens the printed URL. Akoya has no such page."""
        text = self._pages.get_template("index.html").render(settings=self._context.settings, step="index")
        return HTMLResponse(text, 200, _HEADERS)

    async def show(self, call: Call) -> Response:
        """Handle `GET /consent/{login}/{step}`. A page beyond the current step redirects to the current step."""
        login = self._login(call)
        if login is None:
            return self._gone()
        step = call.request.path_params["step"]
        if step not in ("login", "terms", "accounts", "problem"):
            return self._error(404, "Page not found")
        if (step == "terms" and login.user is None) or (step == "accounts" and not login.terms):
            return _go(f"/consent/{login.id}/{_progress(login)}")
        return self._page(login, step)

    async def act(self, call: Call) -> Response:
        """Handle `POST /consent/{login}/{step}`. Redirects with 303, so that the back button does not resend a form."""
        login = self._login(call)
        if login is None:
            return self._gone()
        step, action = call.request.path_params["step"], call.form.get("action")
        if step == "login" and action == "continue":
            return self._sign_in(login, call)
        if step == "terms" and action == "continue" and login.user is not None:
            login.terms = True
            return _go(f"/consent/{login.id}/accounts")
        if step == "accounts" and action == "continue" and login.terms:
            return self._approve(login, call)
        if step in ("login", "terms") and action == "cancel":
            return _go(f"/consent/{login.id}/problem")
        if step == "problem" and action == "continue":
            return _go(f"/consent/{login.id}/{_progress(login)}")
        if step in ("problem", "accounts") and action == "cancel":
            return self._finish(login, self._refusal(login, "access_denied", "The user canceled the request"))
        return _go(f"/consent/{login.id}/{_progress(login)}")

    def headless(self, query: str, user: str, accounts: list[str] | None) -> str:
        """Return the Location to which a browser is redirected after `user` has gone through the pages and approved.

        Args:
            query: The query of the authorization URL.
            user: The test user.
            accounts: The accounts to share. None: all.

        Raises:
            ValueError: An error page is shown instead, or the user or the accounts do not exist.
        """
        parsed = validate_request(self._context, query)
        if isinstance(parsed, ShownError):
            raise ValueError(f"{parsed.status} {parsed.text}")
        if isinstance(parsed, SentError):
            return parsed.location()
        if not demo_users.can_log_in(user, user):
            raise ValueError(f"no test user {user!r}")
        available = self._accounts(parsed.connector, user)
        chosen = available if accounts is None else tuple(account for account in available if account in accounts)
        if not chosen:
            raise ValueError("none of these accounts is the user's")
        fault = self._context.faults.at_approval()
        if fault is not None:
            return SentError(parsed.redirect_uri, fault.error, fault.description, parsed.state).location()
        return self._granted(parsed, user, chosen)

    def _begin(self, request: AuthorizationRequest) -> Login:
        context = self._context
        now = context.now()
        for old in [login.id for login in context.state.logins.values() if login.ends_at <= now]:
            del context.state.logins[old]
        login = Login(context.token(24), request, now + context.settings.login_lifetime)
        context.state.logins[login.id] = login
        return login

    def _login(self, call: Call) -> Login | None:
        login = self._context.state.logins.get(call.request.path_params["login"])
        return login if login and not login.done and login.ends_at > self._context.now() else None

    def _accounts(self, connector: str, user: str) -> tuple[str, ...]:
        return tuple(a.id for a in demo_users.accounts_for(connector, user, self._context.settings.account_count))

    def _sign_in(self, login: Login, call: Call) -> Response:
        user, password = call.form.get("username") or "", call.form.get("password") or ""
        if not demo_users.can_log_in(user, password):
            return self._page(login, "login", status=401, wrong=True, typed=user[:64])
        login.user, login.terms = user, False
        return _go(f"/consent/{login.id}/terms")

    def _approve(self, login: Login, call: Call) -> Response:
        assert login.user is not None
        ticked = call.form.all("account")
        chosen = tuple(a for a in self._accounts(login.request.connector, login.user) if a in ticked)
        if not chosen:
            return self._page(login, "accounts", status=400, none_chosen=True)
        if fault := self._context.faults.at_approval():
            return self._finish(login, self._refusal(login, fault.error, fault.description))
        return self._finish(login, self._granted(login.request, login.user, chosen))

    def _granted(self, request: AuthorizationRequest, user: str, accounts: tuple[str, ...]) -> str:
        context = self._context
        given = tokens.consent(context, request, user, accounts)
        code = tokens.code(context, given, request)
        context.state.record(
            context.now(), "consent", "granted", connector=request.connector, user=user, grant_id=given.grant_id
        )
        scope = " ".join(request.scopes) if context.settings.says_scope_at_callback else None
        return with_query(request.redirect_uri, [("code", code.value), ("scope", scope), ("state", request.state)])

    def _refusal(self, login: Login, error: str, description: str) -> str:
        request = login.request
        self._context.state.record(self._context.now(), "consent", "refused", connector=request.connector, error=error)
        return SentError(request.redirect_uri, error, description, request.state).location()

    def _finish(self, login: Login, location: str) -> Response:
        login.done = True
        return _go(location)

    def _page(self, login: Login, step: str, status: int = 200, **more: Any) -> Response:
        request = login.request
        connector = self._context.connector(request.connector)
        assert connector is not None
        accounts = (
            demo_users.accounts_for(connector.id, login.user, self._context.settings.account_count)
            if login.user
            else ()
        )
        facts = {"wrong": False, "typed": "", "none_chosen": False} | more
        text = self._pages.get_template(f"{step}.html").render(
            login=login, client=request.client, connector=connector, accounts=accounts, step=step, **facts
        )
        return HTMLResponse(text, status, _HEADERS)

    def _error(self, status: int, message: str) -> Response:
        text = self._pages.get_template("error.html").render(status=status, message=message, step="error")
        return HTMLResponse(text, status, _HEADERS)

    def _gone(self) -> Response:
        """Return the error page for a login session that has ended or never existed (docs/akoya.md section 3)."""
        return self._error(400, "Requested resource does not exist")


def _progress(login: Login) -> str:
    if login.user is None:
        return "login"
    return "accounts" if login.terms else "terms"


def _go(location: str) -> Response:
    return RedirectResponse(location, 303 if location.startswith("/") else 302, dict(_HEADERS))
