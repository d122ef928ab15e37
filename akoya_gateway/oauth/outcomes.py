"""What the provider's answers can mean. Pure values; `oauth.token_messages` makes them, `grants` and `journeys` read
them.

What each says of the refresh token that was sent:

==================  ==============================  ===================================================
answer              the token that was sent         what to do
==================  ==============================  ===================================================
`TokensIssued`           spent, or still the same        store, then use
`Refused`           dead                            the user connects again
`ClientRejected`     as good as before               keep the grant, raise an alarm
`ProviderDown`      as good as before               back off, try again
`OutcomeUnknown`    may be spent                    `uncertain`
`Untrusted`         spent if a new one came back    store the new one, never use the bearer (see there)
==================  ==============================  ===================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from akoya_gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP response behind an answer, for the log: validated, bounded, without what was sent.

    `error` and `description` are the members `error` and `error_description` of the body, if it has them.
    """

    status: int
    error: str | None = None
    description: str | None = None


class DownReason(StrEnum):
    """Why an answer is `ProviderDown`."""

    UNAVAILABLE = "unavailable"
    """The provider said that it cannot answer now (5xx, `temporarily_unavailable`)."""
    BUSY = "busy"
    """We ask too often (429)."""
    UNREACHABLE = "unreachable"
    """No connection was made."""
    CERTIFICATE = "certificate-not-trusted"
    """The provider's certificate is not trusted: a matter of the trust store, or of somebody in between."""
    PROXY = "proxy-refused"
    """The proxy of the environment refused to connect."""
    REDIRECT = "redirected"
    """A redirect, which is never followed: the configured address is not the right one."""
    KEYS = "keys-unavailable"
    """The keys at `jwks_uri` cannot be had."""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a successful token answer leaves us with. `bearer` is what the data APIs take (dialect: id_token).

    `expires_at` is Unix seconds. Every text here is judged: tokens and scopes are visible ASCII, `sub` and
    `consent_id` hold no control characters. After a refresh, an empty `scope` and a `consent_id` of None mean that the
    answer did not say: what was known before still holds (RFC 6749 section 6).
    """

    bearer: Secret
    refresh_token: Secret | None
    expires_at: float
    scope: tuple[str, ...]
    sub: str
    consent_id: str | None = None
    """Akoya's `grant_id`, the id of its consent record."""
    nonce: str | None = field(default=None, repr=False)
    """Of the login, if it sent one: a refreshed id_token that has a nonce must have this one."""


@dataclass(frozen=True, slots=True)
class TokensIssued:
    """New tokens, judged. When the answer left out the refresh token, `tokens.refresh_token` is None and the old
    one stays (RFC 6749 section 6)."""

    tokens: TokenSet


@dataclass(frozen=True, slots=True)
class Refused:
    """The code or refresh token is dead (RFC 6749 section 5.2; akoya.md section 4): asking again is pointless.

    `error` is the provider's word, judged (visible ASCII, at most 64 characters): it may be logged.
    """

    error: str
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClientRejected:
    """Our registration or configuration is wrong (401 invalid_client, unauthorized_client, 404...): the grant is as
    good as it was, nobody but an operator can help. `error` is judged as in `Refused`, or our own word."""

    error: str
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ProviderDown:
    """The request was not acted upon: no connection, or an answer that says so (429, 503). The token is unspent.

    `retry_after` is seconds, judged to 0..3600, None if the provider did not say. `detail` is our own text. `busy`: it
    is not down at all, we ask too often (429).
    """

    detail: str
    retry_after: float | None = None
    busy: bool = False
    reason: DownReason = field(default=DownReason.UNAVAILABLE, compare=False)
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """The request left and no usable answer came back: the token may be spent."""

    detail: str
    reply: Reply | None = field(default=None, compare=False)


class DistrustReason(StrEnum):
    """Why an answer is `Untrusted`, and what helps."""

    KEYS = "keys"
    """The signature could not be checked: no key of that id could be had. Nothing is known to be wrong. Store the new
    refresh token and refresh again later: that answer can be judged when the keys are back."""
    ID_TOKEN = "id_token"
    """The answer or its id_token failed judgement (signature, iss, aud, exp, nonce, missing...). Store the new refresh
    token with the grant in a state that does not pass the bearer; a refresh some time later is harmless."""
    SUBJECT = "subject"
    """The id_token is sound but of another provider login (`sub`). The grant is over: revoke the new refresh token,
    the user connects again."""


@dataclass(frozen=True, slots=True)
class Untrusted:
    """A success answer whose id_token did not pass judgement: its bearer is never used, and is not kept here.

    `refresh_token` is the new refresh token of that answer, None if it brought none. It came from the token endpoint
    over an authenticated connection to a request only we could make, and the one we sent is dead once it exists
    (akoya.md section 4), so it must be stored durably in place of the old one, or the grant is lost. It must then
    be used for nothing but a later refresh or a revocation. With None the old refresh token stays.
    """

    detail: str
    refresh_token: Secret | None = field(default=None)
    reason: DistrustReason = DistrustReason.ID_TOKEN
    reply: Reply | None = field(default=None, compare=False)

    @property
    def refresh_token_rotated(self) -> bool:
        """The refresh token that was sent has been replaced."""
        return self.refresh_token is not None


TokenOutcome = TokensIssued | Refused | ClientRejected | ProviderDown | OutcomeUnknown | Untrusted


@dataclass(frozen=True, slots=True)
class Revoked:
    """The token is dead at the provider, by this call or before it (RFC 7009 section 2.2)."""


RevocationOutcome = Revoked | ClientRejected | ProviderDown | OutcomeUnknown


def answer_fields(answer: TokenOutcome | RevocationOutcome) -> dict[str, int | str]:
    """The log's fields about an answer, as far as known.

    `error` is the provider's validated word or our own text, `reason` says which kind of failure it is; of the HTTP
    response there are `status`, `provider_error` and `error_description`.
    """
    reply: Reply | None = getattr(answer, "reply", None)
    fields: dict[str, int | str | None] = {
        "error": getattr(answer, "error", None) or getattr(answer, "detail", None),
        "reason": getattr(answer, "reason", None) or getattr(answer, "reason", None),
    }
    if reply is not None:
        fields |= {
            "status": reply.status,
            "provider_error": reply.error,
            "error_description": reply.description,
        }
    return {name: value for name, value in fields.items() if value is not None}
