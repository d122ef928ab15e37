"""/token and /revoke, with every documented error, in both dialects (docs/akoya.md sections 4 and 5)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from starlette.responses import JSONResponse, Response

from akoya_gateway.sandbox import tokens
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.endpoint import Call
from akoya_gateway.sandbox.fault_injection import FaultKind
from akoya_gateway.sandbox.settings import ClientMethod, SandboxClient, SandboxDialect
from akoya_gateway.sandbox.state import Consent, fingerprint
from akoya_gateway.secret import Secret

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

# Hydra's error descriptions, from errors.go of ory/fosite.
_HYDRA = {
    "invalid_request": "The request is missing a required parameter, includes an invalid parameter value, includes a "
    "parameter more than once, or is otherwise malformed.",
    "invalid_client": "Client authentication failed (e.g., unknown client, no client authentication included, or "
    "unsupported authentication method).",
    "invalid_grant": "The provided authorization grant (e.g., authorization code, resource owner credentials) or "
    "refresh token is invalid, expired, revoked, does not match the redirection URI used in the authorization "
    "request, or was issued to another client.",
    "unsupported_grant_type": "The authorization grant type is not supported by the authorization server.",
}


class TokenRefused(Exception):
    """An error response. `reason` is for the event log only and more detailed than the response."""

    def __init__(self, status: int, error: str, description: str | None, reason: str) -> None:
        super().__init__(reason)
        self.status, self.error, self.description, self.reason = status, error, description, reason


class TokenEndpoint:
    """`POST /token`."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context

    async def __call__(self, call: Call) -> Response:
        form, context = call.form, self._context
        grant_type = form.get("grant_type")
        facts: dict[str, Any] = {
            "grant_type": grant_type,
            "client_id": None,
            "grant_id": None,
            "presented": fingerprint(form.get("refresh_token") or form.get("code")),
            "issued": None,
            "id_token": None,
        }
        try:
            given = self._handle(call, grant_type, facts)
            body = tokens.issue(context, given, context.issuer(call.request), call.plan)
        except TokenRefused as refused:
            facts |= {"reason": refused.reason}
            call.event = context.state.record(context.now(), "token", "refused", status=refused.status, **facts)
            return self._refusal(refused, call)
        facts |= {"issued": fingerprint(body.get("refresh_token")), "id_token": fingerprint(body["id_token"])}
        call.event = context.state.record(context.now(), "token", "issued", status=200, **facts)
        return JSONResponse(body, headers=_NO_STORE)

    def _handle(self, call: Call, grant_type: str | None, facts: dict[str, Any]) -> Consent:
        settings = self._context.settings
        methods = {"authorization_code": settings.code_auth, "refresh_token": settings.refresh_auth}
        client = authenticate(self._context, call, methods.get(grant_type or "", frozenset(ClientMethod)))
        facts["client_id"] = client.client_id
        if call.form.repeated:
            raise TokenRefused(400, "invalid_request", None, "parameter repeated")
        if grant_type == "authorization_code":
            return self._redeem(call, client, facts)
        if grant_type == "refresh_token":
            return self._refresh(call, client, facts)
        if self._context.settings.dialect is SandboxDialect.DEX:
            raise TokenRefused(400, "invalid_grant", None, "grant_type missing or unknown")
        error = "invalid_request" if grant_type is None else "unsupported_grant_type"
        raise TokenRefused(400, error, None, "grant_type missing or unknown")

    def _redeem(self, call: Call, client: SandboxClient, facts: dict[str, Any]) -> Consent:
        """Exchange a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6)."""
        state, now = self._context.state, self._context.now()
        code = state.codes.get(call.form.get("code") or "")
        if code is None or code.consent.client_id != client.client_id:
            self._bad_code("missing, unknown or another client's")
        facts["grant_id"] = code.consent.grant_id
        if code.used:
            if self._context.settings.dialect is SandboxDialect.HYDRA:
                state.end(code.consent, "reused")
            self._bad_code("used")
        if code.ends_at <= now:
            self._bad_code("expired")
        if call.form.get("redirect_uri") != code.redirect_uri:
            self._refuse("invalid_request", "redirect_uri did not match URI from initial request", "redirect_uri")
        self._check_verifier(code.code_challenge, call.form.get("code_verifier"))
        code.used = True
        return code.consent

    def _check_verifier(self, challenge: str | None, verifier: str | None) -> None:
        if challenge is None and verifier is None:
            return
        if challenge is None:
            self._refuse("invalid_request", "No PKCE flow started. Cannot check code_verifier.", "verifier unasked")
        if verifier is None:
            self._refuse("invalid_grant", "Expecting parameter code_verifier in PKCE flow.", "verifier missing")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if not hmac.compare_digest(digest, challenge):
            self._refuse("invalid_grant", "Invalid code_verifier.", "verifier wrong")

    def _refresh(self, call: Call, client: SandboxClient, facts: dict[str, Any]) -> Consent:
        """Refresh (RFC 6749 section 6), with rotation: a refresh token is accepted once (docs/akoya.md section 4)."""
        settings, state, now = self._context.settings, self._context.state, self._context.now()
        presented = call.form.get("refresh_token")
        if presented is None:
            self._refuse("invalid_request", "No refresh token in request", "missing")
        token = state.refresh_tokens.get(presented)
        if token is None or token.consent.client_id != client.client_id:
            self._dead_token("unknown or another client's")
        facts["grant_id"] = token.consent.grant_id
        if call.plan.has(FaultKind.DEAD_TOKEN):
            state.end(token.consent, "dead_token")
            self._dead_token("fault")
        if token.consent.ended is not None:
            self._dead_token(token.consent.ended)
        if token.ends_at is not None and token.ends_at <= now:
            self._dead_token("expired")
        if token.spent_at is None:
            token.spent_at = now
        elif settings.rotation_grace is None or now > token.spent_at + settings.rotation_grace:
            if settings.dialect is SandboxDialect.HYDRA:
                state.end(token.consent, "reused")
            self._dead_token("spent")
        return token.consent

    def _bad_code(self, reason: str) -> NoReturn:
        self._refuse("invalid_request", "Invalid or expired code parameter.", reason)

    def _dead_token(self, reason: str) -> NoReturn:
        self._refuse(
            "invalid_request", "Refresh token is invalid or has already been claimed by another client.", reason
        )

    def _refuse(self, error: str, description: str, reason: str) -> NoReturn:
        """Raise `TokenRefused` with the given Dex error.

        Hydra returns `invalid_request` for a missing parameter and `invalid_grant` for all other errors.
        """
        if self._context.settings.dialect is SandboxDialect.HYDRA:
            raise TokenRefused(400, "invalid_request" if reason == "missing" else "invalid_grant", None, reason)
        raise TokenRefused(400, error, description, reason)

    def _refusal(self, refused: TokenRefused, call: Call) -> Response:
        body = {"error": refused.error}
        if refused.description is not None:
            body["error_description"] = refused.description
        elif self._context.settings.dialect is SandboxDialect.HYDRA and refused.error in _HYDRA:
            body["error_description"] = _HYDRA[refused.error]
        headers = dict(_NO_STORE)
        if refused.status == 401 and "authorization" in call.request.headers:
            headers["WWW-Authenticate"] = "Basic"
        return JSONResponse(body, refused.status, headers)


class RevocationEndpoint:
    """`POST /revoke` (RFC 7009, with Akoya's responses)."""

    def __init__(self, context: SandboxContext) -> None:
        self._context = context

    async def __call__(self, call: Call) -> Response:
        context, form = self._context, call.form
        facts: dict[str, Any] = {"presented": fingerprint(form.get("token")), "client_id": None, "grant_id": None}
        try:
            self._revoke(call, facts)
        except TokenRefused as refused:
            facts |= {"reason": refused.reason}
            call.event = context.state.record(context.now(), "revoke", "refused", status=refused.status, **facts)
            return JSONResponse({"error": refused.error}, refused.status, _NO_STORE)
        call.event = context.state.record(context.now(), "revoke", "revoked", status=200, **facts)
        return Response(b"", 200, _NO_STORE)

    def _revoke(self, call: Call, facts: dict[str, Any]) -> None:
        context, form = self._context, call.form
        if form.repeated or form.get("client_secret") is None or form.get("token") is None:
            raise TokenRefused(400, "invalid_request", None, "parameter missing or repeated")
        try:
            client = authenticate(context, call, frozenset({ClientMethod.POST}))
        except TokenRefused:
            raise TokenRefused(401, "unauthorized_client", None, "client credentials") from None
        facts["client_id"] = client.client_id
        if form.get("token_type_hint") != "refresh_token":
            raise TokenRefused(400, "unsupported_token_type", None, "token_type_hint")
        token = context.state.refresh_tokens.get(form.get("token") or "")
        if token is None or token.consent.client_id != client.client_id or token.consent.ended is not None:
            if context.settings.revoke_unknown_status == 400:
                raise TokenRefused(400, "invalid_request", None, "token unknown or revoked before")
            return
        facts["grant_id"] = token.consent.grant_id
        context.state.end(token.consent, "revoked")


def authenticate(context: SandboxContext, call: Call, allowed: frozenset[ClientMethod]) -> SandboxClient:
    """Authenticate the client of a token request.

    Raises:
        TokenRefused: The client is not authenticated by exactly one of the allowed methods (401).
    """
    header = call.request.headers.get("authorization")
    in_body = call.form.get("client_secret")
    if header is not None and in_body is not None:
        _unknown_client(context, "two ways of client authentication")
    if header is not None:
        if ClientMethod.BASIC not in allowed:
            _unknown_client(context, "HTTP Basic is not accepted for this grant")
        client_id, secret = _basic(header)
    else:
        if ClientMethod.POST not in allowed:
            _unknown_client(context, "client credentials in the body are not accepted for this grant")
        client_id, secret = call.form.get("client_id") or "", in_body or ""
    client = context.state.clients.get(client_id)
    if client is None or client.client_secret != Secret(secret) or call.plan.has(FaultKind.SECRET_ROTATED):
        _unknown_client(context, "client credentials")
    return client


def _unknown_client(context: SandboxContext, reason: str) -> NoReturn:
    description = "Invalid client credentials." if context.settings.dialect is SandboxDialect.DEX else None
    raise TokenRefused(401, "invalid_client", description, reason)


def _basic(header: str) -> tuple[str, str]:
    """Parse HTTP Basic credentials. Both parts are form-encoded before base64 (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return unquote_plus(client_id), unquote_plus(secret)
