"""Errors of failed connection attempts: who is at fault, the code shown to the user, and the operator's log line."""

from __future__ import annotations

from akoya_gateway.config.model import Environment
from akoya_gateway.errors import GatewayError, OperatorError, ProviderError, UserError
from akoya_gateway.log import logger
from akoya_gateway.oauth.authorization_response import AuthorizationRefused, CodeReceived
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DownReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
    answer_fields,
)
from akoya_gateway.oauth.untrusted_text import without_secrets

log = logger("akoya_gateway.endpoints")

OPERATOR_ERRORS = frozenset(
    {"invalid_request", "invalid_scope", "unauthorized_client", "unsupported_response_type", "invalid_state"}
)


def refusal_facts(callback: AuthorizationRefused) -> dict[str, int | str]:
    """Return the log fields of an error in an authorization response: its code and description."""
    facts: dict[str, int | str] = {"error": without_secrets(callback.error, ())}
    if callback.description is not None:
        facts["error_description"] = without_secrets(callback.description, ())
    return facts


def issuer_facts(callback: CodeReceived | AuthorizationRefused, environment: Environment) -> dict[str, int | str]:
    """Return the log fields of a response from another issuer: an attack, or an error in `issuer` such as its slash."""
    received = without_secrets(callback.iss or "", ())
    return {"error": f"iss is {received}, but issuer is {environment.issuer}"}


def refusal(callback: AuthorizationRefused) -> GatewayError:
    """Map the error in an authorization response to a `GatewayError`.

    RFC 6749 section 4.1.2.1. Akoya's set of error codes is open (docs/akoya.md section 3).
    """
    facts = refusal_facts(callback)
    if callback.error == "access_denied":
        return UserError("You cancelled, or the bank declined. Nothing was shared.", code="access_denied", facts=facts)
    if callback.error in ("server_error", "temporarily_unavailable"):
        return ProviderError(code=callback.error, facts=facts)
    if callback.error in OPERATOR_ERRORS:
        detail = f"The authorization endpoint responded with {callback.error}."
        return OperatorError(detail, code=callback.error, facts=facts)
    return UserError("The bank did not complete the sign-in.", code="authorization-refused", facts=facts)


def tokens_or_raise(outcome: TokenOutcome) -> TokenSet:
    """Return the tokens of a successful token response. Raise any other outcome as the error of the party at fault."""
    facts = answer_fields(outcome)
    match outcome:
        case TokensIssued(tokens):
            return tokens
        case Refused():
            raise ProviderError("The code was not accepted.", code="code-refused", facts=facts)
        case ClientRejected(error):
            raise OperatorError(f"The token endpoint responded with {error}.", code="client-refused", facts=facts)
        case ProviderDown():
            raise _down(outcome)
        case OutcomeUnknown():
            # The code may be spent, so it is never sent twice (RFC 6749 section 4.1.2).
            raise ProviderError(status=504, code="outcome-unknown", facts=facts)
        case Untrusted():
            raise ProviderError("The token response could not be verified.", code="untrusted-id-token", facts=facts)


def _down(outcome: ProviderDown) -> GatewayError:
    facts = answer_fields(outcome)
    match outcome.reason:
        case DownReason.CERTIFICATE:
            return OperatorError(code="certificate-not-trusted", facts=facts)
        case DownReason.REDIRECT:
            return OperatorError(code="provider-redirects", facts=facts)
        case DownReason.PROXY:
            return OperatorError(code="proxy-refused", facts=facts)
        case DownReason.UNREACHABLE:
            return ProviderError(status=503, code="provider-unreachable", facts=facts)
    if outcome.reply is not None and (outcome.reply.status, outcome.reply.error) == (500, "server_error"):
        # Dex returns this for an expired code until it has deleted the code. A code is never retried, so the outcome
        # is the same as for a real server error.
        return ProviderError(code="server_error", facts=facts)
    return ProviderError(status=503, code="temporarily_unavailable", facts=facts)


def report(error: GatewayError, connector: str | None, request_id: str) -> None:
    """Log why a bank was not connected, at the level that fits the party at fault.

    `connector` is None if the callback belongs to no attempt.
    """
    error.is_logged = True
    fields: dict[str, int | str | None] = {"connector": connector, "result": error.code, "request_id": request_id}
    fields |= error.facts or ({"error": error.detail} if error.detail else {})
    if isinstance(error, UserError) and error.code != "authorization-refused":
        log.info("connecting a bank failed", **fields)
    elif isinstance(error, UserError | ProviderError):
        log.warning("connecting a bank failed", **fields)
    else:
        log.error("connecting a bank failed", **fields)


def as_gateway_error(error: Exception) -> GatewayError:
    """Return the error to show to the user. Any other than a `GatewayError` is a bug and logged with its traceback."""
    if isinstance(error, GatewayError):
        return error
    log.error("callback failed", exc_info=error)
    return GatewayError()
