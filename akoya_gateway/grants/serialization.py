"""Serializes grants as JSON with a format number. The output is plaintext; the encrypted store encrypts it."""

from __future__ import annotations

import json
from typing import Any

from akoya_gateway.errors import OperatorError
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, Lease, Reuse
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret

FORMAT = 1


class UnreadableGrant(OperatorError):
    """Raised if a record has a newer format or is not a grant. The message contains nothing from the record."""

    code = "grant-unreadable"


def encode(grant: Grant) -> bytes:
    """Serialize a grant. The version is not included, because the record has it."""
    key, tokens = grant.key, grant.tokens
    document: dict[str, Any] = {
        "format": FORMAT,
        "key": [key.owner, key.environment, key.client, key.connector, key.sub],
        "tokens": {
            "bearer": tokens.bearer.reveal(),
            "refresh_token": tokens.refresh_token.reveal() if tokens.refresh_token is not None else None,
            "expires_at": tokens.expires_at,
            "scope": tokens.scope,
            "sub": tokens.sub,
            "consent_id": tokens.consent_id,
            **({} if tokens.nonce is None else {"nonce": tokens.nonce}),
            **({} if tokens.source is None else {"source": tokens.source}),
        },
        "state": grant.state,
        "connected_at": grant.connected_at,
        "refreshed_at": grant.refreshed_at,
        "reason": grant.reason,
        "retry_at": grant.retry_at,
        "failures": grant.failures,
        "unknowns": grant.unknowns,
        "untrusted": grant.untrusted,
        "failed_under": grant.failed_under,
    }
    if grant.lease is not None:
        lease = grant.lease
        document["lease"] = [lease.holder, lease.started_at, lease.expires_at, lease.sent]
    if grant.reuse is not None:
        document["reuse"] = [grant.reuse.at, grant.reuse.until]
    if grant.fallback is not None:
        document["fallback"] = grant.fallback.reveal()
    return json.dumps(document, separators=(",", ":")).encode()


def decode(body: bytes, version: int) -> Grant:
    """Parse a grant.

    Args:
        body: The output of `encode`.
        version: The version of the record.

    Raises:
        UnreadableGrant: The body cannot be parsed or has a newer format.
    """
    document: Any = None
    try:
        document = json.loads(body)
        if document["format"] == FORMAT:
            return _grant(document, version)
    except (ValueError, KeyError, TypeError, AttributeError):
        # The cause is not chained because its text would contain part of the body.
        raise UnreadableGrant("a grant in the store cannot be read") from None
    raise UnreadableGrant("a grant in the store was written by a newer release: run that release")


def _grant(document: dict[str, Any], version: int) -> Grant:
    tokens, lease, reuse = document["tokens"], document.get("lease"), document.get("reuse")
    refresh_token, fallback = tokens["refresh_token"], document.get("fallback")
    return Grant(
        key=GrantKey(*document["key"]),
        tokens=TokenSet(
            bearer=Secret(tokens["bearer"]),
            refresh_token=None if refresh_token is None else Secret(refresh_token),
            expires_at=tokens["expires_at"],
            scope=tuple(tokens["scope"]),
            sub=tokens["sub"],
            consent_id=tokens["consent_id"],
            nonce=tokens.get("nonce"),
            source=tokens.get("source"),
        ),
        state=GrantState(document["state"]),
        connected_at=document["connected_at"],
        refreshed_at=document["refreshed_at"],
        version=version,
        lease=None if lease is None else Lease(*lease),
        reason=document["reason"],
        retry_at=document["retry_at"],
        failures=document["failures"],
        unknowns=document["unknowns"],
        # Records of earlier releases have neither `untrusted` nor `failed_under`.
        untrusted=document.get("untrusted", 0),
        failed_under=document.get("failed_under", 0.0),
        reuse=None if reuse is None else Reuse(*reuse),
        fallback=None if fallback is None else Secret(fallback),
    )
