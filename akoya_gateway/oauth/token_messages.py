"""The token endpoint: builds its requests and evaluates its responses.

RFC 6749 sections 4.1.3, 5 and 6; OpenID Connect Core 3.1.3 and 12; docs/akoya.md section 4.

How a response is evaluated; the first match wins:

1. 2xx: the tokens, if they can be read. Otherwise the token that was sent may be spent: `OutcomeUnknown`, or
   `Untrusted` if at least a new refresh token could be read. With any other status, or elsewhere in the body, it counts
   only next to a bearer, because an error may quote or explain the parameter `refresh_token`. A body without tokens but
   with a readable `error` is evaluated as a 400 if its status is 200, because some providers do that, and is
   `OutcomeUnknown` with any other 2xx.
2. The environment's `dialect.errors`. A rule without a status matches 4xx only, unless its category is `provider_down`:
   dex sends `invalid_request` with 500 when its storage fails, and the token is then still valid.
3. 429, 408, 425, and 4xx with `temporarily_unavailable`, `server_error` or `slow_down`: `ProviderDown`.
4. 400 with `invalid_grant` or `invalid_request`: `Refused` (both dialects of docs/akoya.md section 1a). Two kinds of
   description (`oauth.error_descriptions`) are exceptions, also from a rule of the dialect. `ProviderDown`: the request
   lost a race in the provider's database and should be repeated, as Ory Hydra sends it, or the provider failed.
   `ClientRejected`: the request was incomplete, or the token is that of another client or issuer, because a proxy or
   our configuration is wrong.
5. Any other 4xx: `ClientRejected`. An unknown error code never ends a grant: losing a user's consent because of a web
   application firewall or a wrong URL is worse than an alarm.
6. 502, 504 and the like: `OutcomeUnknown`, because they come from an intermediary that may have forwarded the request.
7. Any other 5xx, and redirects, which are never followed: `ProviderDown`. No 5xx proves that nothing happened, but
   these come from a server that failed to process the request, and both servers that Akoya has used roll back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial

from akoya_gateway.config.model import Bearer, Client, Dialect, ErrorCategory, ErrorRule
from akoya_gateway.oauth.client_authentication import FormRequest, authenticated_request
from akoya_gateway.oauth.error_descriptions import blames_client, means_retry
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DownReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    Reply,
    Untrusted,
)
from akoya_gateway.oauth.refresh_token_value import CONTROLS, is_placeholder, read_refresh_token
from akoya_gateway.oauth.response_members import Members, find_member, read_object
from akoya_gateway.oauth.untrusted_text import error_code, is_visible_ascii, printable, without_secrets
from akoya_gateway.secret import Secret

TokenRequest = FormRequest

MAX_BODY_BYTES = 256 * 1024
MAX_TOKEN_BYTES = 64 * 1024
MAX_SCOPE_BYTES = 2048
MAX_SCOPE_VALUES = 256
MAX_DESCRIPTION = 500
MAX_LIFETIME = 400 * 86_400
"""Seconds. A larger `expires_in` is ignored."""
MAX_RETRY_AFTER = 3600.0

# RFC 6749 appendix A.4 (NQCHAR).
_SCOPE_VALUE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)

_DESCRIPTIONS = ("message", "detail", "error_message")
"""Members that describe an error where `error_description` is missing."""
_NAMES = frozenset(
    {
        "id_token",
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "scope",
        "grant_id",
        "error",
        "error_description",
        *_DESCRIPTIONS,
    }
)
_OPTIONAL = frozenset({"expires_in", "scope", "grant_id", *_DESCRIPTIONS})

_BUSY = frozenset({408, 425, 429})
_BUSY_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_DEAD_ERRORS = frozenset({"invalid_grant", "invalid_request"})
_GATEWAY_STATUSES = frozenset({502, 504, 520, 522, 524, 527, 598, 599})
"""Statuses of intermediaries that may have forwarded the request. Those from 520 on are of Cloudflare and others."""
_REASONS = {429: DownReason.BUSY, 3: DownReason.REDIRECT}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response. The body is read up to `MAX_BODY_BYTES` bytes, plus one byte if it is longer."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None
    """The raw value of the `Retry-After` header."""
    surplus: bytes = field(default=b"", repr=False, compare=False)
    """The bytes received after the end of the body. They are used if a 2xx body alone is not complete JSON."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The members of a success response, each validated by itself. The id_token is not validated yet.

    `expires_in` is positive seconds, or None if the response has no usable value. `scope` is None if it was left out.
    """

    id_token: Secret | None
    access_token: Secret | None
    refresh_token: Secret | None
    expires_in: int | None
    scope: tuple[str, ...] | None
    consent_id: str | None
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Members that could not be read and are not essential, and therefore count as left out."""
    reply: Reply | None = field(default=None, compare=False)


TokenFailure = Refused | ClientRejected | ProviderDown | OutcomeUnknown | Untrusted


def exchange_request(client: Client, code: Secret, code_verifier: Secret | None = None) -> TokenRequest:
    """Build the code exchange request (RFC 6749 section 4.1.3, RFC 7636 section 4.5).

    The dialect's `code_auth` determines the client authentication.
    """
    form = [
        ("grant_type", "authorization_code"),
        ("code", code.reveal()),
        ("redirect_uri", client.redirect_uri),
    ]
    if code_verifier is not None:
        form.append(("code_verifier", code_verifier.reveal()))
    environment = client.environment
    return authenticated_request(environment.token_endpoint, client, environment.dialect.code_auth, tuple(form))


def refresh_request(client: Client, refresh_token: Secret) -> TokenRequest:
    """Build the refresh request (RFC 6749 section 6), without `scope`, so that the granted scopes are kept.

    The dialect's `refresh_auth` determines the client authentication.
    """
    form = (("grant_type", "refresh_token"), ("refresh_token", refresh_token.reveal()))
    environment = client.environment
    return authenticated_request(environment.token_endpoint, client, environment.dialect.refresh_auth, form)


def parse_token_response(
    dialect: Dialect, response: HttpResponse, now: float, secrets: tuple[Secret, ...] = ()
) -> TokenResponse | TokenFailure:
    """Evaluate a response of the token endpoint by the rules of the module docstring. Never raises.

    The Content-Type is not checked: a rotated refresh token in a JSON object must not be discarded because of its
    label, and a web page is not JSON. `secrets` are those of the request; they are masked in texts of the response.
    """
    members = read_members(response)
    reply = read_reply(response.status, members, secrets)
    if not 200 <= response.status < 300:
        new = _new_refresh_token(members.get, secrets)
        if new is not None:
            return Untrusted(
                f"the token endpoint responded with {response.status} and a refresh_token", new, reply=reply
            )
        return parse_error(dialect, response, reply, now)
    tokens = [members.get(name) for name in ("id_token", "access_token", "refresh_token")]
    if not any(tokens) and reply.error not in (None, "unreadable"):
        return parse_error(dialect, response, reply, now)
    parsed = _success(dialect, members, reply)
    if isinstance(parsed, OutcomeUnknown):
        new = _new_refresh_token(partial(find_member, response.body[:MAX_BODY_BYTES]), secrets)
        return parsed if new is None else Untrusted(parsed.detail, new, reply=reply)
    return parsed


def read_members(response: HttpResponse) -> Members:
    """Return the members of the response that are used.

    If the body is not a JSON object or is too long, the members before the error are returned, with a fault.
    """
    members = read_object(response.body[:MAX_BODY_BYTES], _NAMES, _OPTIONAL)
    # A 304 has no body by definition, so a body that follows its head is in `surplus`.
    if members.fault is not None and response.surplus and (200 <= response.status < 300 or response.status == 304):
        longer = read_object((response.body + response.surplus)[:MAX_BODY_BYTES], _NAMES, _OPTIONAL)
        members = longer if read_refresh_token(longer.get("refresh_token")) is not None else members
    fault = f"more than {MAX_BODY_BYTES} bytes" if len(response.body) > MAX_BODY_BYTES else members.fault
    id_token = members.get("id_token")
    stripped = {"id_token": id_token.strip(CONTROLS + " ")} if isinstance(id_token, str) else {}  # No JWT has blanks.
    return Members({**members.values, **stripped}, fault)


def read_reply(status: int, members: Members, secrets: tuple[Secret, ...] = ()) -> Reply:
    """Return the loggable part of the response, including the error by which it is evaluated.

    A malformed body has no error: a grant must not end because of an error that may not have been sent.
    """
    if members.fault is not None:
        return Reply(status)
    error = members.get("error")
    given = (members.get(name) for name in ("error_description", *_DESCRIPTIONS))
    description = next((text for text in given if text not in (None, "")), None)
    if isinstance(description, list):
        description = " ".join(text for text in description if isinstance(text, str))
    word = None if error is None or error == "" else error_code(error)
    if word is not None and without_secrets(word, secrets) != word:
        word = "unreadable"
    text = printable(description, 2 * MAX_DESCRIPTION) if isinstance(description, str) else ""
    return Reply(status, word, printable(without_secrets(text, secrets), MAX_DESCRIPTION) or None)


def parse_error(
    dialect: Dialect, response: HttpResponse, reply: Reply, now: float
) -> Refused | ClientRejected | ProviderDown | OutcomeUnknown:
    """Evaluate a response without tokens by the rules 2 to 7 of the module docstring."""
    status = 400 if response.status == 200 else response.status
    word = reply.error or f"status_{response.status}"
    detail = f"the provider responded with {response.status} ({word})"
    reason = _REASONS.get(status if status == 429 else status // 100, DownReason.UNAVAILABLE)
    down = ProviderDown(detail, parse_retry_after(response.retry_after, now), status == 429, reason, reply)
    outcome = _by_rules(dialect, status, word, down)
    if isinstance(outcome, Refused) and means_retry(word, reply.description or "", bool(down.retry_after)):
        return down
    if isinstance(outcome, Refused) and blames_client(word, reply.description or ""):
        return ClientRejected(word, reply)
    return outcome


def _by_rules(
    dialect: Dialect, status: int, word: str, down: ProviderDown
) -> Refused | ClientRejected | ProviderDown | OutcomeUnknown:
    for rule in dialect.errors:
        if _matches(rule, status, word):
            return _by_rule(rule, word, down)
    if 400 <= status < 500:
        if status in _BUSY or word in _BUSY_ERRORS:
            return down
        if status == 400 and word in _DEAD_ERRORS:
            return Refused(word, down.reply)
        return ClientRejected(word, down.reply)
    if status in _GATEWAY_STATUSES or not 300 <= status < 600:
        return OutcomeUnknown(down.detail, down.reply)
    return down


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return `Retry-After` (RFC 9110 section 10.2.3) as seconds from `now`, at most an hour. None if unreadable."""
    if value is None or not is_visible_ascii(value.replace(" ", "_"), 40):
        return None
    if value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def token_expiry(now: float, exp: float | None, expires_in: int | None, assume_lifetime: float) -> float:
    """Return when the bearer expires, in Unix seconds: the earlier of its `exp` and `now + expires_in`.

    If both are missing, this is `now + assume_lifetime` (docs/akoya.md section 4: lifetimes are not guaranteed).
    """
    ends = [end for end in (exp, None if expires_in is None else now + expires_in) if end is not None]
    return min(ends) if ends else now + assume_lifetime


def _matches(rule: ErrorRule, status: int, word: str) -> bool:
    if rule.error is not None and rule.error != word:
        return False
    if rule.status is not None:
        return rule.status == status
    return rule.category is ErrorCategory.PROVIDER_DOWN or 400 <= status < 500


def _by_rule(rule: ErrorRule, word: str, down: ProviderDown) -> Refused | ClientRejected | ProviderDown:
    match rule.category:
        case ErrorCategory.DEAD_TOKEN:
            return Refused(word, down.reply)
        case ErrorCategory.OPERATOR_FAULT:
            return ClientRejected(word, down.reply)
        case ErrorCategory.PROVIDER_DOWN:
            return down


def _success(dialect: Dialect, members: Members, reply: Reply) -> TokenResponse | TokenFailure:
    """Evaluate a response with tokens; the result is a `TokenResponse` only if every essential member could be read.

    The refresh token is read first: a new one has replaced the one that was sent, so it is kept despite any other
    fault.
    """
    given = members.get("refresh_token")
    new = read_refresh_token(given)
    if new is None and given not in (None, "", False, [], {}) and not is_placeholder(given):
        return OutcomeUnknown(
            f"the token endpoint responded with {reply.status} and an unreadable refresh_token", reply
        )
    unusable = None if members.fault is None else f"but the body is unusable: {members.fault}"
    fault = unusable or _member_problem(dialect, members)
    if fault is not None:
        error_text = f", error {reply.error}" if reply.error is not None and not unusable else ""
        detail = f"the token endpoint responded with {reply.status} {fault}{error_text}"
        doubtful = not (members.get("id_token") or members.get("access_token"))
        return OutcomeUnknown(detail, reply) if new is None else Untrusted(detail, new, reply=reply, doubtful=doubtful)
    scope = members.get("scope")
    values = _scope_values(scope)
    access_token = members.get("access_token")
    return TokenResponse(
        id_token=_secret(members.get("id_token")),
        access_token=_secret(access_token) if is_visible_ascii(access_token, MAX_TOKEN_BYTES) else None,
        refresh_token=new,
        expires_in=_lifetime(members.get("expires_in")),
        scope=values or None,
        consent_id=consent_id(members.get("grant_id")),
        ignored=("scope",) if values is None else (),
        reply=reply,
    )


def consent_id(value: object) -> str | None:
    """Return Akoya's `grant_id`, or None if it is not a visible ASCII string of at most 256 characters."""
    return str(value) if is_visible_ascii(value, 256) else None


def _member_problem(dialect: Dialect, members: Members) -> str | None:
    """Return what is wrong with the essential members, as text for `detail`, or None.

    An access token and its type are not essential if the id_token is the bearer.
    """
    by_access_token = dialect.bearer is Bearer.ACCESS_TOKEN
    for name in ("id_token", "access_token") if by_access_token else ("id_token",):
        value = members.get(name)
        if value is not None and value != "" and not is_visible_ascii(value, MAX_TOKEN_BYTES):
            return f"and an unreadable {name}"
    if not members.get(dialect.bearer.value):
        return f"and no {dialect.bearer.value}"
    kind = members.get("token_type")
    if by_access_token and kind is None:
        return "and no token_type"
    if by_access_token and not (isinstance(kind, str) and kind.strip().lower() == "bearer"):
        return "and a token_type other than bearer"
    return None


def _scope_values(scope: object) -> tuple[str, ...] | None:
    """Return the values of `scope`, or None if it is unreadable.

    `scope` may be a text separated by any white space or a list of such texts.
    """
    given = scope if isinstance(scope, list) else [] if scope is None else [scope]
    texts = [text for text in given if isinstance(text, str)]
    if len(given) > MAX_SCOPE_VALUES or len(texts) != len(given):
        return None
    joined = " ".join(texts)
    values = tuple(joined.split())
    readable = len(joined) <= MAX_SCOPE_BYTES and all(_SCOPE_VALUE.fullmatch(value) for value in values)
    return values if readable else None


def _new_refresh_token(member: Callable[[str], object], secrets: tuple[Secret, ...]) -> Secret | None:
    """Return the refresh token of a response that is not a proper success response, or None if it has no new one.

    `member` returns the value of a member. An error may quote the request, masked or not, or explain under the name of
    the parameter what is wrong with it (`"refresh_token": "is required"`). Storing that would overwrite a valid token,
    so a new token is one that comes with a bearer, as in every response that rotates it (RFC 6749 section 5.1), and is
    none of `secrets`.
    """
    new = read_refresh_token(member("refresh_token"))
    bearers = (member("id_token"), member("access_token"))
    if new is None or new in secrets or not any(is_visible_ascii(bearer, MAX_TOKEN_BYTES) for bearer in bearers):
        return None
    return new


def _secret(value: str | None) -> Secret | None:
    return Secret(value) if value else None


def _lifetime(value: object) -> int | None:
    """Return `expires_in` in seconds, or None if it is not a plausible number.

    It can only shorten the lifetime of a token, so ignoring it is harmless.
    """
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= MAX_LIFETIME else None
