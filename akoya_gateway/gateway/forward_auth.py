"""`/akoya/forward-auth`: the decision for a proxy that asks before it passes a request on itself.

The proxy tells which request it means, in one of three ways, and is believed only if it is one of `trusted_proxies`
(`gateway.original_request` reads it):

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

from akoya_gateway.access.path_normalization import PathRefused, judge
from akoya_gateway.access.request import Ask
from akoya_gateway.admission.gate import Admission, Admitted
from akoya_gateway.authentication.principal import trusts
from akoya_gateway.errors import GatewayError, OperatorError, UserError
from akoya_gateway.gateway.original_request import ORIGINAL_URI, BadDescription, Question
from akoya_gateway.gateway.runtime import Engine
from akoya_gateway.gateway.websocket_origin import require_own_origin
from akoya_gateway.responses.response import Answer

ANSWER = b"x-akoya-answer"
"""`client`: the proxy has been told no, and asks again for what to tell the client (nginx drops it the first time)."""


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


class Told(Protocol):
    """Hears which request was meant and what was decided; for logs and metrics. `gateway.response_observer.Responses`
    is one."""

    def meant(self, original: Ask) -> None: ...

    def decided(self, outcome: Admission) -> None: ...


def is_forward_auth(prefix: str, path: str) -> bool:
    route = prefix + "/forward-auth"
    return path == route or path.startswith(route + "/")


async def forward_auth(engine: Engine, ask: Ask, told: Told) -> Answer:
    """200 with our signed headers, or what the client is to get. Raises `GatewayError` as `Desk.admit` does."""
    if not trusts(engine.trusted, ask):
        raise NotTheProxy("Only trusted_proxies may ask for a decision.")
    if not ask.raw_path.startswith(engine.questions.route):
        # A client's `/akoya/%66orward-auth`, past a proxy that keeps the route from clients by its plain spelling.
        raise PathRefused("The path can be read in two ways.")
    if ask.header(ORIGINAL_URI) is None:
        question = engine.questions.read(ask)
        return _answered(await _decide(engine, ask, question, told), question)
    if ask.header(ANSWER) == b"client":
        return _for_the_client(await _decide(engine, ask, _replaceable(engine, ask), told))
    try:
        question = _replaceable(engine, ask)
        return _for_nginx(_answered(await _decide(engine, ask, question, told), question))
    except GatewayError as error:
        # `auth_request` makes a 500 of any status but 2xx, 401 and 403.
        error.status = error.status if error.status in (401, 403) or error.status >= 500 else 403
        raise


def _replaceable(engine: Engine, ask: Ask) -> Question:
    question = engine.questions.read(ask)
    if not question.replaceable:
        raise BadDescription("The request holds a header of the gateway's that the proxy would pass on.", status=403)
    return question


async def _decide(engine: Engine, ask: Ask, question: Question, told: Told) -> Admission:
    original = question.original(ask)
    told.meant(original)
    path = judge(original.raw_path)
    if engine.routes.own(path):
        raise NotTheProxy("The proxy must pass the gateway's own routes to the gateway.", code="own-route")
    if original.websocket:
        require_own_origin(original, engine.config.public_url)
    admission = engine.desk.admit_now(original, path) or await engine.desk.admit(original, path)
    told.decided(admission)
    return admission


def _answered(admission: Admission, question: Question) -> Answer:
    if not isinstance(admission, Admitted):
        return admission.answer
    return Answer(200, tuple(question.answered(admission.headers)))


def _for_nginx(answer: Answer) -> Answer:
    """A redirect is a 401 with a Location, which a recipe can turn back into one."""
    if answer.status in (400, 404):  # `auth_request` makes a 500 of them.
        return replace(answer, status=403)
    return replace(answer, status=401) if answer.status == 302 else answer


def _for_the_client(admission: Admission) -> Answer:
    """The whole refusal, with its body. A yes now is worth nothing: no token may go out this way."""
    if isinstance(admission, Admitted):
        raise OperatorError("The decision has just changed. Try again.", code="decision-changed", retry_after=1)
    return admission.answer
