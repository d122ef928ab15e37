"""The token endpoint: requests to send, and what its answers mean.

RFC 6749 sections 4.1.3, 5 and 6; OpenID Connect Core 3.1.3 and 12; akoya.md section 4.

What an answer means, first match wins:

1. 2xx: tokens, if they can be read. Otherwise the token that was sent may be spent: `OutcomeUnknown`, or `Untrusted`
   where at least a new refresh token could be read. A body without tokens but with a readable `error` is judged as
   if its status were 400 (some providers send errors with 200).
2. The environment's `dialect.errors`. A rule that names no status matches 4xx only, unless it means `provider_down`:
   dex sends `invalid_request` with 500 when its storage fails, and that token lives.
3. 429, 408, 425 and 4xx with `temporarily_unavailable`, `server_error` or `slow_down`: `ProviderDown`.
4. 400 with `invalid_grant` or `invalid_request`: `Refused` (both dialects of akoya.md section 1a). Not where the
   description of `invalid_request` says that the request lost a race in the provider's database and is to be sent
   again, as Ory Hydra does: `ProviderDown`, also by a rule of the dialect.
5. Any other 4xx: `ClientRejected`. A word we do not know never declares a grant dead: losing a person's consent to a
   web application firewall or to a wrong URL is worse than an alarm.
6. 502 and 504: `OutcomeUnknown`, as they come from a middleman that may have passed the request on.
7. Any other 5xx, and redirects, which are never followed: `ProviderDown`. (No 5xx proves that nothing happened; these
   are answers of a server that failed to do what was asked, and both servers Akoya has used roll back.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from akoya_gateway.config.model import Bearer, Client, Dialect, ErrorCategory, ErrorRule
from akoya_gateway.oauth.client_authentication import FormRequest, authenticated_request
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    DownReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    Reply,
    Untrusted,
)
from akoya_gateway.oauth.response_body import Members, read_object
from akoya_gateway.oauth.untrusted_text import error_code, is_visible_ascii, printable, without_secrets
from akoya_gateway.secret import Secret

TokenRequest = FormRequest

MAX_BODY_BYTES = 256 * 1024
MAX_TOKEN_BYTES = 64 * 1024
MAX_REFRESH_TOKEN_BYTES = 8 * 1024
MAX_SCOPE_BYTES = 2048
MAX_SCOPE_VALUES = 256
MAX_DESCRIPTION = 300
MAX_LIFETIME = 400 * 86_400
"""Seconds; an `expires_in` above it says nothing."""
MAX_RETRY_AFTER = 3600.0

# RFC 6749 appendix A.17 (VSCHAR) and A.4 (NQCHAR).
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+", re.ASCII)
_SCOPE_VALUE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)

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
    }
)
_RETRY = re.compile(r"please retry|multiple concurrent requests using the same token", re.IGNORECASE)
"""Ory Hydra (fosite) when a refresh lost a race in its database."""

_BUSY = frozenset({408, 425, 429})
_BUSY_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_DEAD_ERRORS = frozenset({"invalid_grant", "invalid_request"})
_GATEWAY_STATUSES = frozenset({502, 504})
_REASONS = {429: DownReason.BUSY, 3: DownReason.REDIRECT}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response. Whoever read it stopped at `MAX_BODY_BYTES` bytes, and one more to show that there was more."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None
    """The field value as it came."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The members of a success answer, each judged by itself; the id_token is still to be judged.

    `expires_in` is seconds and positive, None if the answer said nothing usable. `scope` is None if it was left out.
    """

    id_token: Secret | None
    access_token: Secret | None
    refresh_token: Secret | None
    expires_in: int | None
    scope: tuple[str, ...] | None
    consent_id: str | None
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Members that could not be read and decide nothing, so that they count as left out."""
    reply: Reply | None = field(default=None, compare=False)


TokenFailure = Refused | ClientRejected | ProviderDown | OutcomeUnknown | Untrusted


def exchange_request(client: Client, code: Secret, code_verifier: Secret | None = None) -> TokenRequest:
    """RFC 6749 section 4.1.3, RFC 7636 section 4.5; authenticated by the dialect's `code_auth`."""
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
    """RFC 6749 section 6, without `scope`: the same as granted. Authenticated by the dialect's `refresh_auth`."""
    form = (("grant_type", "refresh_token"), ("refresh_token", refresh_token.reveal()))
    environment = client.environment
    return authenticated_request(environment.token_endpoint, client, environment.dialect.refresh_auth, form)


def parse_token_response(
    dialect: Dialect, answer: HttpResponse, now: float, secrets: tuple[Secret, ...] = ()
) -> TokenResponse | TokenFailure:
    """Say what an answer of the token endpoint means (see the module's text). Never raises.

    The Content-Type is not judged: a rotated refresh token in a JSON object is not thrown away for its label, and a
    web page is not JSON. `secrets` are those of the request; what the answer quotes of them is not kept.
    """
    members = read_members(answer)
    reply = read_reply(answer.status, members, secrets)
    if not 200 <= answer.status < 300:
        return parse_error(dialect, answer, reply, now)
    tokens = [members.get(name) for name in ("id_token", "access_token", "refresh_token")]
    if not any(tokens) and reply.error not in (None, "unreadable"):
        return parse_error(dialect, answer, reply, now)
    return _success(dialect, members, reply)


def read_members(answer: HttpResponse) -> Members:
    """The members of the answer's JSON object that are used; those before the fault if it is none, or too long."""
    members = read_object(answer.body[:MAX_BODY_BYTES], _NAMES)
    return (
        Members(members.values, f"more than {MAX_BODY_BYTES} bytes") if len(answer.body) > MAX_BODY_BYTES else members
    )


def read_reply(status: int, members: Members, secrets: tuple[Secret, ...] = ()) -> Reply:
    """What of the answer may be logged, and the error that it is judged by. A body that is in doubt has none: no grant
    ends by what may not have been said."""
    if members.fault is not None:
        return Reply(status)
    error, description = members.get("error"), members.get("error_description")
    word = None if error is None or error == "" else error_code(error)
    if word is not None and without_secrets(word, secrets) != word:
        word = "unreadable"
    text = printable(description, 2 * MAX_DESCRIPTION) if isinstance(description, str) else ""
    return Reply(status, word, printable(without_secrets(text, secrets), MAX_DESCRIPTION) or None)


def parse_error(
    dialect: Dialect, answer: HttpResponse, reply: Reply, now: float
) -> Refused | ClientRejected | ProviderDown | OutcomeUnknown:
    """Rules 2 to 7 of the module's text, for an answer without tokens."""
    status = 400 if 200 <= answer.status < 300 else answer.status
    word = reply.error or f"status_{answer.status}"
    detail = f"the provider answered {answer.status} ({word})"
    reason = _REASONS.get(status if status == 429 else status // 100, DownReason.UNAVAILABLE)
    down = ProviderDown(detail, parse_retry_after(answer.retry_after, now), status == 429, reason, reply)
    judged = _by_rules(dialect, status, word, down)
    if isinstance(judged, Refused) and word == "invalid_request" and _RETRY.search(reply.description or ""):
        return down
    return judged


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
    """`Retry-After` (RFC 9110 section 10.2.3) as seconds from `now`, at most an hour. None if unreadable."""
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
    """When the bearer ends, Unix seconds: the earlier of its `exp` and `now + expires_in`; if the answer has neither,
    `now + assume_lifetime` (akoya.md section 4: lifetimes are no contract)."""
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
    """Tokens become a `TokenResponse` only when every member that decides something could be read.

    The refresh token is looked at first: a new one has replaced the one that was sent, so it outlives any other fault.
    """
    refresh_token = members.get("refresh_token")
    if refresh_token == "":
        refresh_token = None
    if refresh_token is not None and not _is_refresh_token(refresh_token):
        return OutcomeUnknown(f"the token endpoint answered {reply.status} with an unreadable refresh_token", reply)
    new = None if refresh_token is None else Secret(refresh_token)
    unusable = None if members.fault is None else f"but the body is unusable: {members.fault}"
    fault = unusable or _member_problem(dialect, members)
    if fault is not None:
        said = f", error {reply.error}" if reply.error is not None and not unusable else ""
        detail = f"the token endpoint answered {reply.status} {fault}{said}"
        return OutcomeUnknown(detail, reply) if new is None else Untrusted(detail, new, reply=reply)
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
    """Akoya's `grant_id`, from the answer or the id_token: a short visible ASCII string, or else nothing."""
    return str(value) if is_visible_ascii(value, 256) else None


def _member_problem(dialect: Dialect, members: Members) -> str | None:
    """What is wrong with the members that decide something, as words for `detail`.

    An access token and its type decide nothing where the id_token is the bearer.
    """
    by_access_token = dialect.bearer is Bearer.ACCESS_TOKEN
    for name in ("id_token", "access_token") if by_access_token else ("id_token",):
        value = members.get(name)
        if value is not None and value != "" and not is_visible_ascii(value, MAX_TOKEN_BYTES):
            return f"with an unreadable {name}"
    if not members.get(dialect.bearer.value):
        return f"with no {dialect.bearer.value}"
    kind = members.get("token_type")
    if by_access_token and kind is None:
        return "with no token_type"
    if by_access_token and not (isinstance(kind, str) and kind.strip().lower() == "bearer"):
        return "with a token_type other than bearer"
    return None


def _scope_values(scope: object) -> tuple[str, ...] | None:
    """The values of `scope`, a text separated by any white space or a list of such texts; None if it is unreadable."""
    given = scope if isinstance(scope, list) else [] if scope is None else [scope]
    texts = [text for text in given if isinstance(text, str)]
    if len(given) > MAX_SCOPE_VALUES or len(texts) != len(given):
        return None
    joined = " ".join(texts)
    values = tuple(joined.split())
    readable = len(joined) <= MAX_SCOPE_BYTES and all(_SCOPE_VALUE.fullmatch(value) for value in values)
    return values if readable else None


def _is_refresh_token(value: object) -> bool:
    return (
        isinstance(value, str) and len(value) <= MAX_REFRESH_TOKEN_BYTES and _REFRESH_TOKEN.fullmatch(value) is not None
    )


def _secret(value: str | None) -> Secret | None:
    return Secret(value) if value else None


def _lifetime(value: object) -> int | None:
    """`expires_in` in seconds. It can only shorten a token's life, so what is not a sane number says nothing."""
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= MAX_LIFETIME else None
