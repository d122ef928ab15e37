"""Admits requests to the data APIs: `GET /{product}/{version}/{provider}...`. The data is in the other modules.

A request needs the id_token of a consent for this provider, and sees only the accounts of that consent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from akoya_gateway.sandbox import demo_users, tokens
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.data import (
    accounts,
    customers,
    interaction,
    payments,
    statements,
    tax_forms,
    transactions,
)
from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.endpoint import Call, Handler
from akoya_gateway.sandbox.fault_injection import FaultKind
from akoya_gateway.sandbox.state import fingerprint

Product = Callable[[DataRequest], dict[str, Any] | Response]
ROUTES: tuple[tuple[str, str, Product], ...] = (
    ("accounts-info", "", accounts.accounts_info),
    ("balances", "", accounts.balances),
    ("accounts", "", accounts.accounts),
    ("taxlots", "/{account}/{holding}", accounts.tax_lots),
    ("transactions", "/{account}", transactions.transactions),
    ("payments", "/{account}/payment-networks", payments.payment_networks),
    ("customers", "/current", customers.customer),
    ("contacts", "/{account}", customers.contacts),
    ("statements", "/{account}", statements.statements),
    ("statements", "/{account}/{statement}", statements.statement),
    ("tax-forms", "", tax_forms.tax_forms),
    ("tax-forms", "/{form}", tax_forms.tax_form),
)
"""Product, the path after the provider, and the function that returns the data."""
VERSIONS = ("v2", "v3")


class DataApi:
    """Serve the data APIs."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context

    def handler(self, product: str, respond: Product) -> Handler:
        """Return the handler of one route."""

        async def handle(call: Call) -> Response:
            return self._handle(call, product, respond)

        return handle

    def _handle(self, call: Call, product: str, respond: Product) -> Response:
        context, headers = self._context, call.request.headers
        facts: dict[str, Any] = call.facts | interaction.facts(headers) | {"grant_id": None, "id_token": None}
        try:
            response = respond(self._admit(call, product, facts))
        except DataError as error:
            call.event = context.state.record(
                context.now(), "data", "refused", status=error.status, code=error.code, **facts
            )
            response = JSONResponse(error.body(), error.status)
        else:
            if isinstance(response, dict):
                failed = call.plan.has(FaultKind.PARTIAL) and "accounts" in response
                response = JSONResponse(accounts.partial(response) if failed else response, 206 if failed else 200)
            call.event = context.state.record(context.now(), "data", "answered", status=response.status_code, **facts)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _admit(self, call: Call, product: str, facts: dict[str, Any]) -> DataRequest:
        """Authenticate the request and return it with its consent. Raises DataError."""
        context, request = self._context, call.request
        version, provider = request.path_params["version"], request.path_params["provider"]
        self._count(version)
        if version not in VERSIONS:
            raise DataError(403, "use v2 or v3")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = tokens.bearer(context, token.strip()) if scheme.lower() == "bearer" and token else None
        if given is None:
            raise DataError(602, "no live id_token in Authorization")
        facts |= {"grant_id": given.grant_id, "id_token": fingerprint(token.strip())}
        if given.ended is not None:
            raise DataError(given.ended_code, "consent has ended")
        if provider != given.connector:
            raise DataError(403, "the token is for another provider")
        if version == "v3":
            interaction.check(request.headers, product, context.now(), context.settings.max_last_access_age)
        code = demo_users.error_for(given.user)
        if code is not None:
            raise DataError(code, f"test user {given.user}")
        available = demo_users.accounts_for(given.connector, given.user, context.settings.account_count)
        return DataRequest(
            consent=given,
            consented=tuple(account for account in available if account.id in given.accounts),
            path=quote(request.url.path),
            parameters=request.path_params,
            query=dict(request.query_params),
            accept=request.headers.get("accept", ""),
            now=context.now(),
        )

    def _count(self, version: str) -> None:
        """Count the request. Raises DataError 1207 if there were too many within one second."""
        settings, now, calls = self._context.settings, self._context.now(), self._context.state.data_calls
        limit = settings.v3_rate_limit if version == "v3" else settings.rate_limit
        while calls and calls[0] <= now - 1.0:
            calls.popleft()
        if limit is not None and len(calls) >= limit:
            raise DataError(1207, f"more than {limit:g} requests a second")
        calls.append(now)
