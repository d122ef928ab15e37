"""What the provider's answers can mean. Pure values; `protocol.tokens` makes them, `grants` and `journeys` read them."""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a successful token answer leaves us with. `bearer` is what the data APIs take (dialect: id_token)."""

    bearer: Secret
    refresh_token: Secret | None
    expires_at: float
    scope: tuple[str, ...]
    sub: str
    consent_id: str | None = None
    """Akoya's `grant_id`, the id of its consent record."""


@dataclass(frozen=True, slots=True)
class Granted:
    """New tokens, judged. When the answer left out the refresh token, `tokens.refresh_token` is None and the old
    one stays (RFC 6749 section 6)."""

    tokens: TokenSet


@dataclass(frozen=True, slots=True)
class Refused:
    """The code or refresh token is dead (RFC 6749 section 5.2; akoya.md section 4): asking again is pointless."""

    error: str


@dataclass(frozen=True, slots=True)
class OperatorFault:
    """Our registration is wrong (401 invalid_client, unauthorized_client): the grant is as good as it was."""

    error: str


@dataclass(frozen=True, slots=True)
class ProviderDown:
    """The request was not acted upon: no connection, or an answer that says so (429, 503). The token is unspent."""

    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """The request left and no usable answer came back: the token may be spent."""

    detail: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """An answer came with tokens that did not pass judgement (signature, iss, aud, sub...): never used."""

    detail: str
    refresh_token_rotated: bool = True


TokenAnswer = Granted | Refused | OperatorFault | ProviderDown | OutcomeUnknown | Untrusted


@dataclass(frozen=True, slots=True)
class Revoked:
    """The token is dead at the provider, by this call or before it (RFC 7009 section 2.2)."""


RevocationAnswer = Revoked | OperatorFault | ProviderDown | OutcomeUnknown
