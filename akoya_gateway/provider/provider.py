"""Requests of one OAuth client to its provider: code exchange, refresh, revocation. Every outcome is a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Bearer, Client, Tokens
from akoya_gateway.log import logger
from akoya_gateway.oauth.client_authentication import FormRequest
from akoya_gateway.oauth.id_token import (
    IdToken,
    IdTokenRejected,
    SubjectMismatch,
    UnknownKey,
    Unverified,
    validate_id_token,
)
from akoya_gateway.oauth.jwks import KeySet
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DistrustReason,
    DownReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    RevocationOutcome,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.oauth.revocation import parse_revocation_response, revocation_request
from akoya_gateway.oauth.token_messages import (
    HttpResponse,
    TokenFailure,
    TokenRequest,
    TokenResponse,
    exchange_request,
    parse_token_response,
    read_members,
    refresh_request,
    token_expiry,
)
from akoya_gateway.provider.remote_keys import KeysUnavailable, RemoteKeySet
from akoya_gateway.provider.transport import NotSent, ResponseLost, post
from akoya_gateway.secret import Secret
from akoya_gateway.tasks import cancel_until_done

log = logger("akoya_gateway.provider")

LATE_SECONDS = 30.0
"""Seconds after the timeout of a refresh for which its response is still read.

A provider that was stopped for longer than the timeout still has the request. It rotates the refresh token when it
continues, and the new token is in a response that nothing else would read.
"""

_SECRET_FIELDS = frozenset({"code", "code_verifier", "refresh_token", "token", "client_secret"})


class Provider:
    """The requests that one OAuth client sends to its provider.

    No method raises an exception for a failure of the provider or the network. Cancellation propagates. A caller that
    cancels after the request was sent knows as little as after `OutcomeUnknown`, so run a refresh in its own task and
    shield it. No request is sent twice: only the caller knows what was stored and can decide whether to retry.

    If `keys` is None, signatures of id_tokens are not checked (no `jwks_uri`, or `tokens.verify: never`).
    """

    def __init__(
        self, client: Client, http: httpx.AsyncClient, keys: RemoteKeySet | None, tokens: Tokens, clock: Clock
    ) -> None:
        self._client = client
        self._http = http
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._reported: set[str] = set()

    @property
    def client(self) -> Client:
        """The client that this provider serves."""
        return self._client

    async def exchange(
        self, code: Secret, code_verifier: Secret | None = None, nonce: str | None = None
    ) -> TokenOutcome:
        """Exchange an authorization code (RFC 6749 section 4.1.3).

        Args:
            code: The authorization code.
            code_verifier: The PKCE code verifier, if the authorization request had a challenge.
            nonce: The nonce of the authorization request.
        """
        request = exchange_request(self._client, code, code_verifier)
        outcome = await self._request(request, nonce, expected_sub=None)
        if isinstance(outcome, TokensIssued) and not outcome.tokens.scope:
            return TokensIssued(replace(outcome.tokens, scope=self._client.scopes))  # RFC 6749 section 5.1
        return outcome

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        """Refresh the tokens (RFC 6749 section 6).

        An id_token with another `sub` or another nonce is `Untrusted` (OpenID Connect Core 12.2).

        Args:
            refresh_token: The current refresh token.
            sub: The `sub` of the grant.
            nonce: The nonce of the login, or None if unknown.
            may_send: As for `post`.
        """
        request = refresh_request(self._client, refresh_token)
        return await self._request(request, nonce, sub, LATE_SECONDS, may_send)

    async def revoke(self, refresh_token: Secret) -> RevocationOutcome:
        """Revoke the grant (RFC 7009). May be repeated: revoking a dead token succeeds."""
        request = revocation_request(self._client, refresh_token)
        if request is None:
            return ClientRejected("no_revocation_endpoint")
        result = await post(self._http, request, self._client.environment.timeout)
        match result:
            case NotSent(detail, reason):
                return ProviderDown(detail, reason=reason)
            case ResponseLost(detail):
                return OutcomeUnknown(detail)
        return parse_revocation_response(self._client, result, self._clock(), self._secrets(request))

    async def _request(
        self,
        request: TokenRequest,
        nonce: str | None,
        expected_sub: str | None,
        late: float = 0.0,
        may_send: Callable[[], bool] | None = None,
    ) -> TokenOutcome:
        """Fetch the keys, then send the request and evaluate the response. `late` and `may_send` are those of `post`.

        The keys come first because an outage of the `jwks_uri` must be detected while the token is still unspent.
        """
        keys: KeySet | None = None
        if self._keys is not None:
            try:
                keys = await self._keys.current()
            except KeysUnavailable as fault:
                return ProviderDown(str(fault), reason=DownReason.KEYS)
        result = await post(self._http, request, self._client.environment.timeout, late, may_send)
        outcome = await self._evaluate(result, request, keys, nonce, expected_sub)
        if not isinstance(result, ResponseLost) or result.late is None:
            return outcome
        if not isinstance(outcome, OutcomeUnknown):  # The received part was sufficient.
            await cancel_until_done(result.late)
            return outcome
        rest = result.late

        async def evaluate_late() -> TokenOutcome:
            return await self._evaluate(await rest, request, keys, nonce, expected_sub)

        return replace(outcome, late=asyncio.get_running_loop().create_task(evaluate_late()))

    async def _evaluate(
        self,
        result: HttpResponse | NotSent | ResponseLost,
        request: TokenRequest,
        keys: KeySet | None,
        nonce: str | None,
        expected_sub: str | None,
    ) -> TokenOutcome:
        environment = self._client.environment
        match result:
            case NotSent(detail, reason):
                return ProviderDown(detail, reason=reason)
            case ResponseLost():
                response = self._parse_truncated(result, request)
            case _:
                response = parse_token_response(environment.dialect, result, self._clock(), self._secrets(request))
        if not isinstance(response, TokenResponse):
            return response
        self._report(response)
        return await self._validate_response(response, keys, nonce, expected_sub)

    def _parse_truncated(self, lost: ResponseLost, request: TokenRequest) -> TokenResponse | TokenFailure:
        """Evaluate a response that is truncated, compressed wrongly, or not valid HTTP.

        It is used if it contains a complete JSON object, or a new refresh token, because then the old one is spent. An
        error in it does not end a grant.
        """
        if lost.part is not None:
            parsed = parse_token_response(
                self._client.environment.dialect, lost.part, self._clock(), self._secrets(request)
            )
            if isinstance(parsed, Refused):
                return OutcomeUnknown(f"{lost.detail}, after {parsed.error}", parsed.reply)
            if isinstance(parsed, Untrusted) or read_members(lost.part).fault is None:
                return parsed
        return OutcomeUnknown(lost.detail)

    def _secrets(self, request: FormRequest) -> tuple[Secret, ...]:
        """Return the secrets of the request, which must not be logged if the provider quotes them."""
        sent = (Secret(value) for name, value in request.form if name in _SECRET_FIELDS)
        return (*sent, self._client.client_secret)

    def _report(self, response: TokenResponse) -> None:
        """Log each unreadable member once: it would recur with every refresh."""
        for member in response.ignored:
            if member not in self._reported:
                self._reported.add(member)
                log.warning("unreadable member of token responses ignored", client=self._client.name, member=member)

    async def _validate_response(
        self, response: TokenResponse, keys: KeySet | None, nonce: str | None, expected_sub: str | None
    ) -> TokenOutcome:
        """Validate the id_token of a token response.

        The result is `TokensIssued` only if the id_token is valid. The new refresh token is kept in either case.
        """
        try:
            id_token = await self._validate_id_token(response.id_token, keys, nonce, expected_sub)
        except IdTokenRejected as fault:
            detail = f"id_token: {fault.reason}"
            return Untrusted(detail, response.refresh_token, _distrust_reason(fault), reply=response.reply)
        tokens = replace(self._token_set(response, id_token, expected_sub), nonce=nonce)
        if expected_sub is not None and tokens.expires_at <= self._clock():
            # Within the leeway, but useless as a bearer: as a success it would be refreshed again by the next request.
            return Untrusted(
                "id_token: exp is past", response.refresh_token, DistrustReason.ID_TOKEN, reply=response.reply
            )
        return TokensIssued(tokens)

    async def _validate_id_token(
        self, token: Secret | None, keys: KeySet | None, nonce: str | None, expected_sub: str | None
    ) -> IdToken | None:
        """Validate the id_token; fetch the keys again, once, if none of them verifies it.

        Returns None for a refresh response without an id_token, which is allowed where the id_token is not the bearer
        (OpenID Connect Core 12.2).
        """
        if token is None:
            if expected_sub is None:
                raise IdTokenRejected("missing")
            return None
        try:
            return self._validate_with_keys(token, keys, nonce, expected_sub)
        except Unverified:
            if self._keys is None:
                raise
        try:
            renewed = await self._keys.refresh()
        except KeysUnavailable as fault:
            raise UnknownKey(str(fault)) from None
        return self._validate_with_keys(token, renewed, nonce, expected_sub)

    def _validate_with_keys(
        self, token: Secret, keys: KeySet | None, nonce: str | None, expected_sub: str | None
    ) -> IdToken:
        return validate_id_token(
            token,
            keys,
            self._client,
            self._client.environment,
            self._clock(),
            nonce=nonce,
            expected_sub=expected_sub,
            leeway=self._tokens.leeway,
        )

    def _token_set(self, response: TokenResponse, id_token: IdToken | None, expected_sub: str | None) -> TokenSet:
        """Build the token set. `parse_token_response` has already checked that the bearer is present."""
        is_bearer = self._client.environment.dialect.bearer is Bearer.ID_TOKEN
        bearer = response.id_token if is_bearer else response.access_token
        sub = expected_sub if id_token is None else id_token.sub
        assert bearer is not None and sub is not None
        claimed_id = None if id_token is None else id_token.consent_id
        return TokenSet(
            bearer=bearer,
            refresh_token=response.refresh_token,
            expires_at=token_expiry(
                self._clock(),
                id_token.expires_at if is_bearer and id_token is not None else None,
                response.expires_in,
                self._tokens.assume_lifetime,
            ),
            scope=response.scope or (),
            sub=sub,
            consent_id=response.consent_id or claimed_id,
            source=self._client.token_source,
        )


def _distrust_reason(fault: IdTokenRejected) -> DistrustReason:
    match fault:
        case UnknownKey():
            return DistrustReason.KEYS
        case SubjectMismatch():
            return DistrustReason.SUBJECT
        case _:
            return DistrustReason.ID_TOKEN
