"""The revocation endpoint: RFC 7009 and docs/akoya.md section 5.

Akoya revokes by the refresh token, with `token_type_hint=refresh_token` (required, and the only accepted value) and the
client's credentials in the body.
"""

from __future__ import annotations

from akoya_gateway.config.model import Client
from akoya_gateway.oauth.client_authentication import FormRequest, authenticated_request
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    RevocationOutcome,
    Revoked,
)
from akoya_gateway.oauth.token_messages import HttpResponse, parse_error, read_members, read_reply
from akoya_gateway.secret import Secret

_ALREADY_REVOKED = frozenset({"invalid_grant", "invalid_token"})


def revocation_request(client: Client, refresh_token: Secret) -> FormRequest | None:
    """Build a revocation request (RFC 7009 section 2.1), or return None if the environment has no revocation endpoint.

    The dialect's `revoke_auth` determines the client authentication.
    """
    environment = client.environment
    if environment.revocation_endpoint is None:
        return None
    form = (("token", refresh_token.reveal()), ("token_type_hint", "refresh_token"))
    return authenticated_request(environment.revocation_endpoint, client, environment.dialect.revoke_auth, form)


def parse_revocation_response(
    client: Client, response: HttpResponse, now: float, secrets: tuple[Secret, ...] = ()
) -> RevocationOutcome:
    """Evaluate a response of the revocation endpoint. Never raises.

    2xx is `Revoked`: the response to an unknown token is 200 too (RFC 7009 section 2.2). A body that names an `error`
    is evaluated by that error, even with a 2xx status. `invalid_grant` and `invalid_token` mean that the token is
    already dead, which is the goal.

    400 `invalid_request` does not count as revoked. Akoya sends it when the secret is missing, so nothing is known to
    be revoked, and `ClientRejected` keeps the revocation in the retry queue. Everything else is evaluated as at the
    token endpoint.
    """
    reply = read_reply(response.status, read_members(response), secrets)
    if 200 <= response.status < 300 and reply.error in (None, "unreadable"):
        return Revoked()
    if response.status < 500 and not 300 <= response.status < 400 and reply.error in _ALREADY_REVOKED:
        return Revoked()
    outcome = parse_error(client.environment.dialect, response, reply, now)
    match outcome:
        case Refused(error=word):
            return ClientRejected(word, outcome.reply)
        case ClientRejected() | ProviderDown() | OutcomeUnknown():
            return outcome
