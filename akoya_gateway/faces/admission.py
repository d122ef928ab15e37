"""May this request go on, and with which headers? Asked by every face; answered here and nowhere else.

`admit_now` is the whole decision without waiting, for a request whose session and grant are at hand; `admit` is the
same decision where the store or the provider must be asked. They share every step that decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from akoya_gateway.access.ask import Ask, Headers, authority, folds_to
from akoya_gateway.access.decision import Gatekeeper, Pass, Stop
from akoya_gateway.access.paths import judge
from akoya_gateway.access.rules import RuleMatch
from akoya_gateway.answers.answer import Answer
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.faces.passing import Passing
from akoya_gateway.faces.refusals import Refusals
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.keeper import Keeper
from akoya_gateway.journeys.visitor import Visitor, Visitors


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request goes on; `headers` are ours to add, after `Passing.strip` has removed the client's copies."""

    rule: AccessRule
    headers: Headers = field(repr=False)
    grant: Grant | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """The request ends here, with this answer. `rule` None: none covers it."""

    answer: Answer
    rule: AccessRule | None
    why: str


Admission = Admitted | Denied


class Desk:
    """Decides admission. Compiled once per configuration."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        visitors: Visitors,
        keeper: Keeper,
        passing: Passing,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._visitors = visitors
        self._require_sound = visitors.require_sound
        self._keeper = keeper
        self._passing = passing
        self._refusals = refusals
        self._clock = clock

    def admit_now(self, ask: Ask, path: str) -> Admitted | None:
        """The plain case, or None: ask `admit`. Raises `GatewayError` as `admit` does."""
        match = self._match(ask, path)
        if match is None:
            return None
        if not self._gatekeeper.needs_owner(match):
            return Admitted(match.rule, [])
        visitor = self._visitors.peek(ask)
        if visitor is None or visitor.owner is None:
            return None
        held = self._keeper.peek(visitor.owner)
        if held is None:
            return None
        decision = self._gatekeeper.decide(match, held)
        if isinstance(decision, Stop) or decision.grant is None or not self._keeper.ready(decision.grant):
            return None
        return self._pass(decision, ask, held, self._clock())

    async def admit(self, ask: Ask, path: str) -> Admission:
        """`path` is `paths.judge(ask.raw_path)`.

        Raises `GatewayError` where nothing can be decided (store or provider away): fail closed, never a logout.
        """
        match = self._match(ask, path)
        if match is None or not self._gatekeeper.needs_owner(match):
            return self._settle(self._gatekeeper.decide(match, None), ask, None)
        visitor = await self._visitors.of(ask)
        held = await self._held(visitor)
        return await self._with_fresh_grant(match, held, ask)

    def _match(self, ask: Ask, path: str) -> RuleMatch | None:
        if self._require_sound is not None:
            self._require_sound(ask)
        match = self._gatekeeper.match(ask.method, path)
        if self._gatekeeper.goes_by_method and names_a_method(ask) and self._gatekeeper.minds_method(path):
            raise UserError("This address takes no method override.", code="method-override")
        return match

    async def _held(self, visitor: Visitor) -> OwnerGrants | None:
        return None if visitor.owner is None else await self._keeper.of(visitor.owner)

    async def _with_fresh_grant(self, match: RuleMatch, held: OwnerGrants | None, ask: Ask) -> Admission:
        """Grants that turn out unusable are left aside one by one; what kept the last one back is the answer."""
        tried: frozenset[str] = frozenset()
        trouble: GatewayError | None = None
        while True:
            decision = self._gatekeeper.decide(match, held, tried)
            if isinstance(decision, Pass) and decision.grant is not None and held is not None:
                try:
                    fresh = await self._keeper.fresh(decision.grant)
                except GatewayError as error:
                    trouble = trouble if isinstance(error, NeedsReconnect) else error
                    tried |= {decision.grant.id}
                    continue
                if fresh is not decision.grant:
                    held = await self._keeper.of(held.owner)
                    decision = Pass(decision.rule, fresh, decision.identified)
            if isinstance(decision, Stop) and trouble is not None:
                raise trouble
            return self._settle(decision, ask, held)

    def _settle(self, decision: Pass | Stop, ask: Ask, held: OwnerGrants | None) -> Admission:
        if isinstance(decision, Stop):
            return Denied(self._refusals.stop(decision, ask), decision.rule, decision.why.value)
        return self._pass(decision, ask, held, self._clock())

    def _pass(self, decision: Pass, ask: Ask, held: OwnerGrants | None, now: float) -> Admitted:
        if held is None or not decision.identified:
            return Admitted(decision.rule, [])
        headers = self._passing.headers(decision.rule, decision.grant, held, ask, authority(ask), now)
        return Admitted(decision.rule, headers, decision.grant, held.owner)


_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")


def names_a_method(ask: Ask) -> bool:
    """Whether the app may take the request for one of another method: it must not, where the rules go by it."""
    return any(
        name[:1] == b"x" and any(folds_to(name, override) for override in _OVERRIDES) for name, _ in ask.headers
    )


def judged_path(ask: Ask) -> str:
    """The one normalisation (`access.paths`). Raises `PathRefused`."""
    return judge(ask.raw_path)
