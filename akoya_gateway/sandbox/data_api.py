"""The data APIs. They require the id_token and return only the accounts of the consent (docs/akoya.md section 6)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from akoya_gateway.sandbox import demo_users, tokens
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.demo_users import Account
from akoya_gateway.sandbox.endpoint import Call
from akoya_gateway.sandbox.state import Consent, fingerprint

DEFAULT_LIMIT = 50
_MEANINGS = {
    500: (500, "Internal server error"),
    501: (501, "Subsystem unavailable"),
    601: (404, "Customer not found"),
    602: (401, "Customer not authorized"),
    701: (404, "Account not found"),
    702: (400, "Invalid start or end date"),
    703: (400, "Invalid date range"),
    704: (400, "Account type not supported"),
    1207: (429, "Too many requests"),
}


class DataFault(Exception):
    """An error response with a `status` and Akoya's integer `code`."""

    def __init__(self, code: int, detail: str = "", *, status: int | None = None, message: str | None = None) -> None:
        known_status, known_message = _MEANINGS.get(code, (code, "Request failed"))
        super().__init__(message or known_message)
        self.code, self.detail = code, detail
        self.status, self.message = status or known_status, message or known_message


class DataApi:
    """Serve `GET /{product}/{version}/{provider}...` as the data APIs do."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context

    async def accounts_info(self, call: Call) -> Response:
        return self._respond(call, lambda given: {"accounts": [demo_users.info(a) for a in self._accounts(given)]})

    async def balances(self, call: Call) -> Response:
        now = self._context.now()
        return self._respond(
            call, lambda given: {"accounts": [demo_users.balance(a, now) for a in self._accounts(given)]}
        )

    async def accounts(self, call: Call) -> Response:
        now = self._context.now()
        return self._respond(
            call, lambda given: {"accounts": [demo_users.detail(a, now) for a in self._accounts(given)]}
        )

    async def customer(self, call: Call) -> Response:
        return self._respond(call, lambda given: {"customer": demo_users.customer(given.user)})

    async def transactions(self, call: Call) -> Response:
        return self._respond(call, lambda given: self._transactions(call, given))

    def _respond(self, call: Call, make: Any) -> Response:
        context = self._context
        headers = {"x-akoya-interaction-id": context.uuid(), "Cache-Control": "no-store"}
        facts: dict[str, Any] = {"path": call.request.url.path, "grant_id": None, "id_token": None}
        try:
            body = make(self._admit(call, facts))
        except DataFault as fault:
            call.event = context.state.record(
                context.now(), "data", "refused", status=fault.status, code=fault.code, **facts
            )
            answer = {"code": fault.code, "message": fault.message, "debugMessage": fault.detail}
            return JSONResponse(answer, fault.status, headers)
        call.event = context.state.record(context.now(), "data", "answered", status=200, **facts)
        return JSONResponse(body, 200, headers)

    def _admit(self, call: Call, facts: dict[str, Any]) -> Consent:
        """Authenticate the request and return its consent. Raises DataFault."""
        request, parameters = call.request, call.request.path_params
        self._count()
        if parameters["version"] not in ("v2", "v3"):
            raise DataFault(403, "use v2 or v3", message="Forbidden")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = tokens.bearer(self._context, token.strip()) if scheme.lower() == "bearer" and token else None
        if given is None:
            raise DataFault(602, "no live id_token in Authorization")
        facts |= {"grant_id": given.grant_id, "id_token": fingerprint(token.strip())}
        if given.ended is not None:
            raise DataFault(given.ended_code, "consent has ended")
        if parameters["provider"] != given.connector:
            raise DataFault(403, "the token is for another provider", message="Forbidden")
        if parameters["version"] == "v3":
            _check_v3(call)
        error = demo_users.error_for(given.user)
        if error is not None:
            raise DataFault(error, f"test user {given.user}")
        return given

    def _count(self) -> None:
        limit = self._context.settings.rate_limit
        if limit is None:
            return
        now, calls = self._context.now(), self._context.state.data_calls
        while calls and calls[0] <= now - 1.0:
            calls.popleft()
        if len(calls) >= limit:
            raise DataFault(1207, f"more than {limit:g} requests a second")
        calls.append(now)

    def _accounts(self, given: Consent) -> list[Account]:
        available = demo_users.accounts_for(given.connector, given.user, self._context.settings.account_count)
        return [account for account in available if account.id in given.accounts]

    def _transactions(self, call: Call, given: Consent) -> dict[str, Any]:
        wanted = call.request.path_params["account"]
        account = next((a for a in self._accounts(given) if a.id == wanted), None)
        if account is None:
            raise DataFault(701)
        query = call.request.query_params
        start, end = _time(query.get("startTime")), _time(query.get("endTime"))
        if start and end and start > end:
            raise DataFault(703)
        offset, limit = _count_of(query.get("offset"), 0), _count_of(query.get("limit"), DEFAULT_LIMIT)
        found = demo_users.transactions(account, start, end)
        return {
            "transactions": found[offset : offset + limit],
            "page": {"total": len(found), "nextOffset": offset + limit},
        }


def _check_v3(call: Call) -> None:
    """Check the headers that v3 requires: the type of the interaction and when the consumer was last active."""
    headers = call.request.headers
    if headers.get("x-akoya-interaction-type", "").lower() not in ("user", "batch"):
        raise DataFault(400, "x-akoya-interaction-type: user or batch", message="Bad request")
    try:
        at = datetime.fromisoformat(headers.get("x-akoya-last-access", ""))
    except ValueError:
        raise DataFault(400, "x-akoya-last-access: an ISO 8601 time", message="Bad request") from None
    if at.utcoffset() is None or at.utcoffset() != UTC.utcoffset(None):
        raise DataFault(400, "x-akoya-last-access: a time in UTC", message="Bad request")


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataFault(702) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _count_of(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise DataFault(400, "offset and limit are whole numbers", message="Bad request")
    return int(text)
