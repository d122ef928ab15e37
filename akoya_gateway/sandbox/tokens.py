"""Creation of consents, codes, id_tokens and refresh tokens, and validation of id_tokens."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from akoya_gateway.sandbox import demo_users
from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.fault_injection import DrawnFaults, FaultKind
from akoya_gateway.sandbox.settings import SandboxDialect
from akoya_gateway.sandbox.state import AuthorizationRequest, Code, Consent, RefreshToken

PRODUCTS = ("account_info", "balances", "customers", "investments", "transactions")
STRANGER = "mikomo_stranger"
RECIPIENT_ID = "akoya-sandbox-recipient"


def consent(context: SandboxContext, request: AuthorizationRequest, user: str, accounts: tuple[str, ...]) -> Consent:
    """Store and return a new consent."""
    given = Consent(
        grant_id=context.uuid(),
        client_id=request.client.client_id,
        connector=request.connector,
        user=user,
        accounts=accounts,
        scopes=request.scopes,
        given_at=context.now(),
        session_id=context.uuid(),
        nonce=request.nonce,
    )
    context.state.consents[given.grant_id] = given
    return given


def code(context: SandboxContext, given: Consent, request: AuthorizationRequest) -> Code:
    """Store and return a new code in the format of the dialect (docs/akoya.md section 3).

    Dex: 25 base32 characters. Hydra: `ory_ac_` and two parts.
    """
    if context.settings.dialect is SandboxDialect.HYDRA:
        value = f"ory_ac_{context.token(32)}.{context.token(32)}"
    else:
        value = context.base32(25)
    made = Code(
        value, given, request.redirect_uri, request.code_challenge, context.now() + context.settings.code_lifetime
    )
    context.state.codes[value] = made
    return made


def issue(context: SandboxContext, given: Consent, issuer: str, plan: DrawnFaults) -> dict[str, Any]:
    """Issue new tokens and return the body of the token response (docs/akoya.md section 4)."""
    settings = context.settings
    if plan.has(FaultKind.ROTATE_KEYS):
        context.keys.rotate(keep_old=False)
    access_token = f"ory_at_{context.token(32)}.{context.token(32)}"
    claims = _claims(context, given, issuer, access_token)
    if short := plan.get(FaultKind.LIFETIME):
        claims["exp"] = int(context.now() + short.seconds)
    if plan.has(FaultKind.WRONG_SUB):
        claims["sub"] = demo_users.subject(given.connector, STRANGER, settings.user_id_bytes)
    if altered := plan.get(FaultKind.CLAIMS):
        claims = {name: value for name, value in (claims | dict(altered.claims)).items() if value is not None}
    # Hydra signs with the current key but keeps the kid of the first id_token in all later ones (ory/hydra#3573).
    given.kid = given.kid or context.keys.kid
    kid = given.kid if settings.dialect is SandboxDialect.HYDRA else None
    body: dict[str, Any] = {
        "id_token": context.keys.sign(claims, forged=plan.has(FaultKind.BAD_SIGNATURE), kid=kid),
        "token_type": "bearer",
        "scope": " ".join(given.scopes),
    }
    if settings.expires_in:
        body["expires_in"] = settings.announced_lifetime or int(settings.id_token_lifetime)
    if settings.access_token:
        body["access_token"] = access_token
    if settings.grant_id_in_answer:
        body["grant_id"] = given.grant_id
    if "offline_access" in given.scopes:
        body["refresh_token"] = _refresh_token(context, given)
    return body


def _claims(context: SandboxContext, given: Consent, issuer: str, access_token: str) -> dict[str, Any]:
    settings, now = context.settings, int(context.now())
    half = hashlib.sha256(access_token.encode()).digest()[:16]
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": demo_users.subject(given.connector, given.user, settings.user_id_bytes),
        "aud": [given.client_id] if settings.audience_is_array else given.client_id,
        "exp": int(now + settings.id_token_lifetime),
        "iat": now,
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "grant_id": given.grant_id,
        "accounts": list(given.accounts),
        "products": list(PRODUCTS),
        "recipientId": RECIPIENT_ID,
        "connectorId": given.connector,
    }
    if "profile" in given.scopes:
        claims["name"] = given.user
    if given.nonce is not None:
        claims["nonce"] = given.nonce
    if settings.dialect is SandboxDialect.HYDRA:
        claims |= {
            "auth_time": int(given.given_at),
            "rat": int(given.given_at),
            "sid": given.session_id,
            "jti": context.uuid(),
        }
    return claims


def _refresh_token(context: SandboxContext, given: Consent) -> str:
    settings = context.settings
    value = f"ory_rt_{context.token(32)}.{context.token(32)}"
    if settings.dialect is SandboxDialect.DEX:
        value = "Chl" + context.base32(48) + context.base32(24)
    ends_at = None
    if settings.refresh_token_lifetime is not None:
        start = context.now() if settings.refresh_token_rolling else given.given_at
        ends_at = start + settings.refresh_token_lifetime
    context.state.refresh_tokens[value] = RefreshToken(value, given, ends_at)
    return value


def bearer(context: SandboxContext, token: str) -> Consent | None:
    """Return the consent of an id_token, or None if the token is not valid or has expired.

    The consent itself may have ended (see `Consent.ended`).
    """
    claims = context.keys.verify(token)
    if claims is None or not isinstance(claims.get("exp"), int) or claims["exp"] <= context.now():
        return None
    return context.state.consents.get(str(claims.get("grant_id")))
