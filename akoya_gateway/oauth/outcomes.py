"""Outcomes of requests to the provider, as values.

`oauth.token_messages` creates them; `grants` and `endpoints` use them. What each means for the refresh token that was
sent:

==================  ==============================  ===================================================
outcome             the token that was sent         what to do
==================  ==============================  ===================================================
`TokensIssued`      spent, or still the same        store the tokens, then use them
`Refused`           dead                            the user must connect again
`ClientRejected`    still valid                     keep the grant, raise an alarm
`ProviderDown`      still valid                     back off, try again
`OutcomeUnknown`    may be spent                    mark the grant `uncertain`
`Untrusted`         spent if a new one came back    store the new one, never use the bearer (see there)
==================  ==============================  ===================================================
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP response behind an outcome, for logging: validated, bounded, without the secrets that were sent.

    `error` and `description` are the members `error` and `error_description` of the body, or None.
    """

    status: int
    error: str | None = None
    description: str | None = None


class DownReason(StrEnum):
    """Why an outcome is `ProviderDown`."""

    UNAVAILABLE = "unavailable"
    """The provider reported that it is unavailable (5xx, `temporarily_unavailable`)."""
    BUSY = "busy"
    """The gateway sends too many requests (429)."""
    UNREACHABLE = "unreachable"
    """No connection was made."""
    CERTIFICATE = "certificate-not-trusted"
    """The provider's certificate is not trusted: the trust store lacks its issuer, or a third party intercepts TLS."""
    PROXY = "proxy-refused"
    """The proxy of the environment refused to connect."""
    REDIRECT = "redirected"
    """The provider sent a redirect, which is never followed: the configured URL is wrong."""
    PAUSED = "paused"
    """The lease expired before the request could be sent: this process was stopped, or could not renew the lease."""
    KEYS = "keys-unavailable"
    """The keys at `jwks_uri` are unavailable."""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """The tokens of a successful token response.

    `bearer` is the token for the data APIs; the dialect says which one that is, by default the id_token. `expires_at`
    is Unix seconds. Every text is validated: tokens and scopes are visible ASCII, `sub` and `consent_id` contain no
    control characters. After a refresh, an empty `scope` and a `consent_id` of None mean that the response did not
    contain them and the previous values remain valid (RFC 6749 section 6).
    """

    bearer: Secret
    refresh_token: Secret | None
    expires_at: float
    scope: tuple[str, ...]
    sub: str
    consent_id: str | None = None
    """Akoya's `grant_id`, the ID of its consent record."""
    nonce: str | None = field(default=None, repr=False)
    """The nonce of the login, if it sent one. If a refreshed id_token has a nonce, it must be this one."""
    source: str | None = field(default=None, compare=False)
    """`Client.token_source` of the client that received the tokens. None in records of earlier releases."""


@dataclass(frozen=True, slots=True)
class TokensIssued:
    """New, validated tokens.

    If the response left out the refresh token, `tokens.refresh_token` is None and the old one remains valid (RFC 6749
    section 6).
    """

    tokens: TokenSet


@dataclass(frozen=True, slots=True)
class Refused:
    """The code or refresh token is dead (RFC 6749 section 5.2; docs/akoya.md section 4). Retrying is pointless.

    `error` is the provider's error code, validated (visible ASCII, at most 64 characters), so it may be logged.
    """

    error: str
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClientRejected:
    """The client registration or configuration is wrong (401 invalid_client, unauthorized_client, 404...).

    The grant is not affected, and only an operator can fix the problem. `error` is the provider's error code, validated
    as in `Refused`, or a code of the gateway.
    """

    error: str
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ProviderDown:
    """The provider did not process the request: there was no connection, or the response says so (429, 503).

    The refresh token is unspent. `retry_after` is seconds, limited to 0..3600, or None if the provider sent none.
    `detail` is a text of the gateway. If `busy` is true, the provider is not down, but the gateway sends too many
    requests (429).
    """

    detail: str
    retry_after: float | None = None
    busy: bool = False
    reason: DownReason = field(default=DownReason.UNAVAILABLE, compare=False)
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """The request was sent and no usable response was received: the token may be spent.

    After a timeout, `late` returns the outcome once the response has been received after all, or given up.
    """

    detail: str
    reply: Reply | None = field(default=None, compare=False)
    late: Awaitable[TokenOutcome] | None = field(default=None, compare=False, repr=False)


class DistrustReason(StrEnum):
    """Why an outcome is `Untrusted`, and how to recover."""

    KEYS = "keys"
    """The signature could not be checked because no key with that ID was available. Nothing is known to be wrong.

    Store the new refresh token and refresh again later, when the keys are available.
    """
    ID_TOKEN = "id_token"
    """The response or its id_token is invalid (signature, iss, aud, exp, nonce, missing...).

    Store the new refresh token with the grant in a state that does not pass the bearer. A later refresh is harmless.
    """
    SOURCE = "source"
    """The refresh token was refused by another token endpoint than the one that issued it, or for another client_id.

    The configuration was changed, and is probably wrong. Keep the refresh token, and refresh again later.
    """
    SUBJECT = "subject"
    """The id_token is valid but belongs to another provider login (`sub`).

    The grant is over: revoke the new refresh token. The user must connect again.
    """


@dataclass(frozen=True, slots=True)
class Untrusted:
    """A response that cannot be trusted, mostly a success response whose id_token is invalid.

    Its bearer is never used and is not kept here.

    `refresh_token` is the new refresh token of that response, or None if it contained none. It came from the token
    endpoint over an authenticated connection, in response to a request that only the gateway could make. The refresh
    token that was sent is dead once a new one exists (docs/akoya.md section 4), so the new one must be stored durably
    in its place, or the grant is lost. It must then be used only for a later refresh or a revocation. If it is None,
    the old refresh token remains in place. If it is `doubtful`, the old one is tried if the new one is refused.
    """

    detail: str
    refresh_token: Secret | None = field(default=None)
    reason: DistrustReason = DistrustReason.ID_TOKEN
    reply: Reply | None = field(default=None, compare=False)
    doubtful: bool = field(default=False, compare=False)
    """The refresh token came without a bearer and may be part of an error text. Keep the one that was sent as well."""

    @property
    def refresh_token_rotated(self) -> bool:
        """Whether the refresh token that was sent has been replaced."""
        return self.refresh_token is not None


TokenOutcome = TokensIssued | Refused | ClientRejected | ProviderDown | OutcomeUnknown | Untrusted


@dataclass(frozen=True, slots=True)
class Revoked:
    """The token is dead at the provider, because of this call or an earlier one (RFC 7009 section 2.2)."""


RevocationOutcome = Revoked | ClientRejected | ProviderDown | OutcomeUnknown

_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client", "status_401"})
"""Errors that can only be about the client (RFC 6749 section 5.2)."""


def may_concern_one_grant(outcome: TokenOutcome | RevocationOutcome) -> bool:
    """Return True for a failure that may be that of this grant only, although its token is not refused.

    A provider may respond with "account temporarily locked" (`error_descriptions.means_retry`) for one user, and with
    403 for one bank. Such a failure alone must not hold back the other grants.
    """
    if isinstance(outcome, ClientRejected):
        return outcome.error not in _CLIENT_ERRORS
    if not isinstance(outcome, ProviderDown | OutcomeUnknown) or outcome.reply is None:
        return False
    # Some providers send errors with status 200.
    return outcome.reply.status in (200, 400) and outcome.reply.error in ("invalid_grant", "invalid_request")


def answer_fields(outcome: TokenOutcome | RevocationOutcome) -> dict[str, int | str]:
    """Return the log fields of an outcome, without those that are None.

    `error` is the provider's validated error code or the gateway's text. `reason` is the kind of failure. `status`,
    `provider_error` and `error_description` come from the HTTP response.
    """
    reply: Reply | None = getattr(outcome, "reply", None)
    fields: dict[str, int | str | None] = {
        "error": getattr(outcome, "error", None) or getattr(outcome, "detail", None),
        "reason": getattr(outcome, "reason", None),
    }
    if reply is not None:
        fields |= {
            "status": reply.status,
            "provider_error": reply.error,
            "error_description": reply.description,
        }
    return {name: value for name, value in fields.items() if value is not None}
