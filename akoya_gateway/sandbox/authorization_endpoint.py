"""Validation of authorization requests at /auth (docs/akoya.md section 3).

A request is valid, or it fails with an error page in the browser, or with an error sent to the redirect URI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from akoya_gateway.sandbox.context import SandboxContext
from akoya_gateway.sandbox.settings import SandboxClient, SandboxDialect
from akoya_gateway.sandbox.state import AuthorizationRequest

SCOPES = frozenset({"openid", "profile", "email", "offline_access"})
MIN_STATE_LENGTH = 8
WEAK_STATE = (
    "The state is missing or does not have enough characters and is therefore considered too weak. "
    "Request parameter 'state' must be at least be 8 characters long to ensure sufficient entropy."
)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""An S256 challenge is 32 bytes in base64url (RFC 7636 section 4.2)."""


@dataclass(frozen=True, slots=True)
class ShownError:
    """An error shown in the browser only, because the redirect URI is not trusted or Akoya sends no redirect for it."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class SentError:
    """An error sent to the redirect URI (RFC 6749 section 4.1.2.1)."""

    redirect_uri: str
    error: str
    description: str
    state: str | None

    def location(self) -> str:
        """Return the redirect URI with the error parameters."""
        return with_query(
            self.redirect_uri,
            [("error", self.error), ("error_description", self.description), ("state", self.state)],
        )


def with_query(uri: str, parameters: list[tuple[str, str | None]]) -> str:
    """Append the parameters that are not empty to the query of `uri`."""
    parts = urlsplit(uri)
    added = urlencode([(name, value) for name, value in parameters if value])
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added)))))


def validate_request(context: SandboxContext, query: str) -> AuthorizationRequest | ShownError | SentError:
    """Validate the query string of /auth and return the request or the error to show or send."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return ShownError(400, "Bad request")
    given = dict(reversed(pairs))
    repeated = len(given) != len(pairs)
    client_id = given.get("client_id", "")
    client = context.state.clients.get(client_id)
    if client is None:
        return ShownError(400, f'Invalid client_id ("{client_id}")')
    redirect_uri = given.get("redirect_uri", "")
    if redirect_uri not in client.redirect_uris:
        return ShownError(400, "Unregistered redirect_uri")
    if "connector" in given and given["connector"] == "":
        return ShownError(403, "Forbidden")
    if "connector" not in given:
        return ShownError(200, "There is no bank to sign in to: the address names no connector.")
    if context.connector(given["connector"]) is None:
        return ShownError(400, "Invalid ConnectorID")
    if given.get("response_type") == "":
        return ShownError(403, "Forbidden")
    refusal = _refusal(context, client, given, repeated)
    if refusal is not None:
        return SentError(redirect_uri, *refusal, given.get("state"))
    return AuthorizationRequest(
        client=client,
        connector=given["connector"],
        redirect_uri=redirect_uri,
        scopes=tuple(given["scope"].split()),
        state=given.get("state"),
        nonce=given.get("nonce"),
        code_challenge=given.get("code_challenge"),
    )


def _refusal(
    context: SandboxContext, client: SandboxClient, given: dict[str, str], repeated: bool
) -> tuple[str, str] | None:
    """Return the `error` and `error_description` to send to the redirect URI, or None for a valid request."""
    if repeated or "response_type" not in given:
        return "invalid_request", "Invalid response type"
    if given["response_type"] != "code":
        return "unsupported_response_type", ""
    if not client.may_authorize:
        return "unauthorized_client", ""
    if context.settings.dialect is SandboxDialect.HYDRA and len(given.get("state", "")) < MIN_STATE_LENGTH:
        return "invalid_state", WEAK_STATE
    scopes = given.get("scope", "").split()
    if "openid" not in scopes:
        return "invalid_scope", 'Missing required scope(s) ["openid"].'
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        return "invalid_scope", "Unrecognized scope(s) [{}]".format(" ".join(f'"{scope}"' for scope in unknown))
    if "code_challenge" in given:
        method = given.get("code_challenge_method", "plain")
        if method != "S256":
            return "invalid_request", f'Unsupported PKCE challenge method ("{method}").'
        if not _CHALLENGE.fullmatch(given["code_challenge"]):
            return "invalid_request", "The code_challenge is not a S256 challenge."
    return None
