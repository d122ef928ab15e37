"""`/akoya/forward-auth`: the decision for a proxy that asks before it passes a request on itself.

The proxy tells which request it means, in one of three ways, and is believed only if it is one of `trusted_proxies`:

=======================================  ==========================================================================
nginx `auth_request`                     `X-Original-Method`, `X-Original-URI`
Traefik, Caddy, HAProxy (our recipe)     `X-Forwarded-Method`, `X-Forwarded-Uri`
Envoy `ext_authz` (HTTP, `path_prefix`)  its own method and the path below `/akoya/forward-auth`
=======================================  ==========================================================================

`Host`, or `X-Forwarded-Host` where there is one, is the authority of the original request; cookies and the rest are the
client's own. What two of them say differently is refused, not chosen from (CVE-2026-40575, CVE-2026-33495).
"""

from __future__ import annotations

from dataclasses import replace

from akoya_gateway.access.ask import Ask, Headers
from akoya_gateway.access.paths import judge
from akoya_gateway.answers.answer import Answer
from akoya_gateway.errors import UserError
from akoya_gateway.faces.admission import Admitted
from akoya_gateway.faces.engine import Engine
from akoya_gateway.journeys.visitor import trusts
from akoya_gateway.signing.names import is_ours

ORIGINAL_METHOD, ORIGINAL_URI = b"x-original-method", b"x-original-uri"
FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST = b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"

_METHOD_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"


class NotTheProxy(UserError):
    status = 403
    code = "untrusted-proxy"
    title = "Access denied"


class BadDescription(UserError):
    """The proxy's description of the original request is missing or contradicts itself."""

    code = "bad-description"
    title = "The request could not be understood"


def is_forward_auth(prefix: str, path: str) -> bool:
    route = prefix + "/forward-auth"
    return path == route or path.startswith(route + "/")


async def forward_auth(engine: Engine, ask: Ask) -> Answer:
    """200 with our signed headers, or what the client is to get. Raises `GatewayError` as `Desk.admit` does."""
    if not trusts(engine.config.trusted_proxies, ask.peer):
        raise NotTheProxy("Only trusted_proxies may ask for a decision.")
    if ask.header(ORIGINAL_URI) is None:
        return await _decide(engine, ask)
    try:
        return _for_nginx(await _decide(engine, ask))
    except UserError as error:
        # `auth_request` makes a 500 of any status but 2xx, 401 and 403.
        error.status = error.status if error.status in (401, 403) else 403
        raise


async def _decide(engine: Engine, ask: Ask) -> Answer:
    original = described(ask, engine.config.prefix + "/forward-auth")
    path = judge(original.raw_path)
    if engine.routes.own(path):
        raise NotTheProxy("The proxy must pass the gateway's own routes to the gateway.", code="own-route")
    admission = engine.desk.admit_now(original, path) or await engine.desk.admit(original, path)
    return _granted(admission, ask) if isinstance(admission, Admitted) else admission.answer


def described(ask: Ask, route: str) -> Ask:
    """The original request. Raises `BadDescription`."""
    below = ask.raw_path.removeprefix(route.encode())
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
    upgrade = ask.header(b"upgrade")
    return replace(
        ask,
        method=method.decode(),
        raw_path=raw_path,
        query=query,
        headers=_as_sent(ask),
        websocket=upgrade is not None and upgrade.lower() == b"websocket",
    )


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


def _granted(admitted: Admitted, ask: Ask) -> Answer:
    """Our headers, and for Envoy the list of the client's copies that it has to take away."""
    ours = {name for name, _ in admitted.headers}
    copies = sorted({name for name, _ in ask.headers if is_ours(name) and name not in ours})
    removal = ((b"x-envoy-auth-headers-to-remove", b",".join(copies)),) if copies else ()
    return Answer(200, (*admitted.headers, *removal))


def _for_nginx(answer: Answer) -> Answer:
    """A redirect is a 401 with a Location, which the recipe turns back into one."""
    if answer.status == 404:
        return replace(answer, status=403)
    return replace(answer, status=401) if answer.status == 302 else answer
