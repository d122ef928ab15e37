"""`/akoya/forward-auth`: the decision for a proxy that asks before it passes a request on itself.

The proxy tells which request it means, in one of three ways, and is believed only if it is one of `trusted_proxies`:

=======================================  ==========================================================================
nginx `auth_request`                     `X-Original-Method`, `X-Original-URI`; `Host`
Traefik, Caddy, HAProxy (our recipe)     `X-Forwarded-Method`, `X-Forwarded-Uri`, `X-Forwarded-Host`
Envoy `ext_authz` (HTTP, `path_prefix`)  its own method and the path below `/akoya/forward-auth`; `Host`
=======================================  ==========================================================================

Cookies and the rest are the client's own. What two of the ways say differently is refused, not chosen from
(CVE-2026-40575, CVE-2026-33495). `docs/forward-auth.md` says what each proxy has to do; `deploy/` does it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from akoya_gateway.access.ask import Ask, Headers
from akoya_gateway.access.paths import PathRefused, judge
from akoya_gateway.answers.answer import Answer
from akoya_gateway.errors import GatewayError, OperatorError, UserError
from akoya_gateway.faces.admission import Admission, Admitted
from akoya_gateway.faces.engine import Engine
from akoya_gateway.faces.origin import require_own_origin
from akoya_gateway.journeys.visitor import trusts
from akoya_gateway.signing.names import ASSERTION, PASSED_NAMES, SIGNATURE, SIGNATURE_INPUT, is_ours

ORIGINAL_METHOD, ORIGINAL_URI = b"x-original-method", b"x-original-uri"
FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST = b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"

ANSWER = b"x-akoya-answer"
"""`client`: the proxy has been told no, and asks again for what to tell the client (nginx drops it the first time)."""

_METHOD_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_REPLACED = frozenset({*PASSED_NAMES, ASSERTION, SIGNATURE, SIGNATURE_INPUT})


class ForwardAuthOff(UserError):
    """Behind a balancer that is a trusted proxy, a page's own script could ask, and read the user's tokens."""

    status = 404
    code = "forward-auth-off"
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("This gateway decides for no other proxy: set forward_auth: true if it is to.")


class NotTheProxy(UserError):
    status = 403
    code = "untrusted-proxy"
    title = "Access denied"


class BadDescription(UserError):
    """The proxy's description of the original request is missing or contradicts itself."""

    code = "bad-description"
    title = "The request could not be understood"


class Told(Protocol):
    """Hears which request was meant and what was decided; for logs and metrics. `faces.responses.Responses` is one."""

    def meant(self, original: Ask) -> None: ...

    def decided(self, outcome: Admission) -> None: ...


def is_forward_auth(prefix: str, path: str) -> bool:
    route = prefix + "/forward-auth"
    return path == route or path.startswith(route + "/")


async def forward_auth(engine: Engine, ask: Ask, told: Told) -> Answer:
    """200 with our signed headers, or what the client is to get. Raises `GatewayError` as `Desk.admit` does."""
    if not trusts(engine.config.trusted_proxies, ask):
        raise NotTheProxy("Only trusted_proxies may ask for a decision.")
    if not ask.raw_path.startswith(_route(engine)):
        # A client's `/akoya/%66orward-auth`, past a proxy that keeps the route from clients by its plain spelling.
        raise PathRefused("The path can be read in two ways.")
    if ask.header(ORIGINAL_URI) is None:
        return _answered(engine, await _decide(engine, ask, told), ask)
    if ask.header(ANSWER) == b"client":
        _require_replaceable(ask)
        return _for_the_client(await _decide(engine, ask, told))
    try:
        _require_replaceable(ask)
        return _for_nginx(_answered(engine, await _decide(engine, ask, told), ask))
    except GatewayError as error:
        # `auth_request` makes a 500 of any status but 2xx, 401 and 403.
        error.status = error.status if error.status in (401, 403) or error.status >= 500 else 403
        raise


async def _decide(engine: Engine, ask: Ask, told: Told) -> Admission:
    original = described(ask, _route(engine))
    told.meant(original)
    path = judge(original.raw_path)
    if engine.routes.own(path):
        raise NotTheProxy("The proxy must pass the gateway's own routes to the gateway.", code="own-route")
    if original.websocket:
        require_own_origin(original, engine.config.public_url)
    admission = engine.desk.admit_now(original, path) or await engine.desk.admit(original, path)
    told.decided(admission)
    return admission


def _route(engine: Engine) -> bytes:
    return engine.config.prefix.encode() + b"/forward-auth"


def described(ask: Ask, route: bytes) -> Ask:
    """The original request. Raises `BadDescription`."""
    below = ask.raw_path.removeprefix(route)
    original, forwarded = _one(ask, ORIGINAL_URI), _one(ask, FORWARDED_URI)
    ways = [way for way in (original, forwarded, below or None) if way is not None]
    if len(ways) != 1:
        raise BadDescription("Describe the request in exactly one way: X-Original-URI, X-Forwarded-Uri or the path.")
    if below:
        uri, method = below + (b"?" + ask.query if ask.query else b""), ask.method.encode()
    else:
        uri, method = ways[0], _one(ask, ORIGINAL_METHOD if original is not None else FORWARDED_METHOD) or b""
    if not method or method.translate(None, _METHOD_CHARACTERS):
        raise BadDescription("The original method is missing or malformed.")
    raw_path, _, query = uri.partition(b"?")
    return replace(
        ask,
        method=method.decode(),
        raw_path=raw_path,
        query=query,
        headers=ask.headers if forwarded is None else _as_sent(ask),
        websocket=_opens_a_websocket(ask),
        content_digest=None,  # The body at hand is the question's.
    )


def _opens_a_websocket(ask: Ask) -> bool:
    """By `Upgrade`, or by the key of the handshake (RFC 6455 section 4.1) where the proxy keeps `Upgrade` to itself, as
    Traefik does. No script can send that key with another request: a browser keeps `Sec-*` from it."""
    upgrade = ask.header(b"upgrade")
    return (upgrade is not None and upgrade.lower() == b"websocket") or ask.header(b"sec-websocket-key") is not None


def _as_sent(ask: Ask) -> Headers:
    """The client's headers, with the authority it asked for."""
    host = _one(ask, FORWARDED_HOST)
    if host is None:
        return ask.headers
    return [(b"host", host), *(pair for pair in ask.headers if pair[0] != b"host")]


def _one(ask: Ask, name: bytes) -> bytes | None:
    values = [value for key, value in ask.headers if key == name]
    if len(values) > 1:
        raise BadDescription(f"{name.decode()} occurs more than once.")
    return values[0] if values else None


def _require_replaceable(ask: Ask) -> None:
    """nginx replaces headers that its configuration names, and no others; it drops names with `_` or `.` by default.

    What is still here of another name that an upstream could take for ours, it would pass on.
    """
    if any(is_ours(name) and name not in _REPLACED for name, _ in ask.headers):
        raise BadDescription("The request holds a header of the gateway's that the proxy would pass on.", status=403)


def _answered(engine: Engine, admission: Admission, ask: Ask) -> Answer:
    """Our headers, what is left of the client's cookies, and for Envoy the list of what it has to take away."""
    if not isinstance(admission, Admitted):
        return admission.answer
    headers, gone = list(admission.headers), {name for name, _ in ask.headers if is_ours(name)}
    cookies = [value for name, value in ask.headers if name == b"cookie"]
    if cookies:
        # The session cookie is for the gateway alone (design.md section 5).
        left = engine.cookies.without_ours(b"; ".join(cookies))
        headers += [(b"cookie", left)] if left else []
        gone |= {b"cookie"}
    gone -= {name for name, _ in headers}
    if gone:
        headers.append((b"x-envoy-auth-headers-to-remove", b",".join(sorted(gone))))
    return Answer(200, tuple(headers))


def _for_nginx(answer: Answer) -> Answer:
    """A redirect is a 401 with a Location, which a recipe can turn back into one."""
    if answer.status == 404:
        return replace(answer, status=403)
    return replace(answer, status=401) if answer.status == 302 else answer


def _for_the_client(admission: Admission) -> Answer:
    """The whole refusal, with its body. A yes now is worth nothing: no token may go out this way."""
    if isinstance(admission, Admitted):
        raise OperatorError("The decision has just changed. Try again.", code="decision-changed", retry_after=1)
    return admission.answer
