"""`GET /akoya/token/{connector}?owner=&grant=` on the admin listener: returns a fresh token.

It is for background jobs, and for upstreams whose server cannot accept the large header.

The route exists only if `admin.token_bearer` is set, and never on the public port. The caller authenticates with that
bearer token (RFC 6750 section 2.1) and names the owner by the value of `Akoya-Owner`. It may also name one login by the
value of `Akoya-Grant`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.requests import Request

from akoya_gateway.access.grant_selection import validated
from akoya_gateway.errors import GatewayError, MethodNotAllowed, UserError
from akoya_gateway.gateway.runtime import Runtime
from akoya_gateway.grants.errors import NeedsReconnect, UnknownGrant
from akoya_gateway.grants.grant import Grant
from akoya_gateway.sessions.last_access import rounded
from akoya_gateway.signing.claims import BATCH
from akoya_gateway.signing.header_values import timestamp

MAX_LOGGED = 256
"""Number of characters of a parameter that are logged."""


class NoToken(UserError):
    """The owner has no grant for this connector that can provide a token."""

    status = 404
    code = "not-connected"
    title = "The owner has no live grant for this connector"


class WrongBearer(UserError):
    """The request has no bearer token, or not that of `admin.token_bearer`."""

    status = 401
    code = "unauthorized"

    def __init__(self, *, is_sent: bool) -> None:
        """Create the error with the challenge of RFC 6750 section 3. `is_sent`: whether the request has a token."""
        super().__init__("Send `Authorization: Bearer` with admin.token_bearer.")
        error = b', error="invalid_token"' if is_sent else b""
        self.headers = ((b"www-authenticate", b'Bearer realm="akoya-gateway"' + error),)


async def token_of(runtime: Runtime, request: Request, facts: dict[str, str]) -> dict[str, object]:
    """Return the body of the response, and add the log fields of the request to `facts`. Raises `GatewayError`."""
    if request.method != "GET":
        raise MethodNotAllowed("GET")
    authenticate(runtime, request)
    connector = request.scope["path"].removeprefix(f"{runtime.config.prefix}/token/")
    owner = named_owner(request)
    chosen = validated(request.query_params.getlist("grant"))
    facts |= {"owner": owner[:MAX_LOGGED], "connector": connector[:MAX_LOGGED]}
    configured = runtime.config.connectors.get(connector)
    if configured is None:
        raise NoToken
    grant = await fresh_grant(runtime, owner, connector, chosen)
    facts["grant"] = grant.public_id
    return {
        "connector": connector,
        "provider": configured.id,
        "grant": grant.public_id,
        "interaction_type": BATCH,
        "last_access": timestamp(await last_access(runtime, grant)),
        "environment": grant.key.environment,
        "owner": owner,
        "id_token": grant.tokens.bearer.reveal(),
        "expires": int(grant.tokens.expires_at),
        "scope": " ".join(grant.tokens.scope),
        **({} if grant.tokens.consent_id is None else {"consent": grant.tokens.consent_id}),
    }


def authenticate(runtime: Runtime, request: Request) -> None:
    """Check the bearer token of a request to the admin listener. Raises `WrongBearer`."""
    expected = runtime.config.token_bearer
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    sent = token.strip(" ").encode("latin-1")
    is_valid = expected is not None and hmac.compare_digest(sent, expected.reveal().encode())
    is_bearer = scheme.lower() == "bearer"
    if not is_bearer or not is_valid:
        raise WrongBearer(is_sent=is_bearer)


def connect_link(runtime: Runtime, facts: Mapping[str, str]) -> dict[str, object]:
    """Return the members of a response that say where the owner can connect the bank."""
    connector, public = facts["connector"], runtime.config.public_url
    if connector not in runtime.config.connectors:
        return {}
    path = f"{runtime.config.prefix}/connect/{connector}"
    return {"connect_url": f"{public.scheme}://{public.authority}{path}", "connectors": [connector]}


def named_owner(request: Request) -> str:
    """Return the owner that the request names. Raises `UserError` if it does not name exactly one."""
    owners = request.query_params.getlist("owner")
    if len(owners) != 1 or not owners[0]:
        raise UserError("Send exactly one `owner` parameter, with the value of Akoya-Owner.", code="no-owner")
    return owners[0]


async def last_access(runtime: Runtime, grant: Grant) -> int:
    """Return when the grant's owner was last active, in Unix seconds. Connecting the bank counts as activity."""
    owner = grant.key.owner
    return max(await runtime.last_access.get(owner) or 0, rounded(owner, grant.connected_at))


async def fresh_grant(runtime: Runtime, owner: str, connector: str, chosen: str | None) -> Grant:
    """Return the most recent grant that can be used, or the chosen one, refreshed if necessary.

    As for requests, a grant of another client or environment than the connector now has does not exist.

    Raises `UnknownGrant`, `NoToken`, `NeedsReconnect`, or the error of the last grant that failed for another reason.
    """
    missing: GatewayError = NoToken()
    last_error = None
    owner_grants = await runtime.grants.for_owner(owner)
    grants = [grant for grant in owner_grants.for_connector(connector) if runtime.policy.is_bound(grant)]
    if chosen is not None:
        grants = [grant for grant in grants if grant.public_id == chosen]
        if not grants:
            raise UnknownGrant("The owner has no such login at this bank.")
    for grant in grants:
        try:
            return await runtime.grants.get_fresh(grant)
        except NeedsReconnect as error:
            missing = error
        except GatewayError as error:
            last_error = error
    raise last_error or missing
