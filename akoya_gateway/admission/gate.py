"""May this request go on, and with which headers? Asked by every face; answered here and nowhere else.

`admit_now` is the whole decision without waiting, for a request whose session and grant are at hand; `admit` is the
same decision where the store or the provider must be asked. They share every step that decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from akoya_gateway.access.path_normalization import judge
from akoya_gateway.access.policy import Gatekeeper, Pass, Stop
from akoya_gateway.access.request import Ask, Headers, names_a_method, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.admission.decision_cache import Standings
from akoya_gateway.admission.denial_responses import Refusals
from akoya_gateway.admission.header_injector import Passing
from akoya_gateway.admission.request_headers import Fields
from akoya_gateway.authentication.principal import Visitor, Visitors
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import AccessRule
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.errors import NeedsReconnect
from akoya_gateway.grants.grant import Grant, OwnerGrants
from akoya_gateway.grants.manager import Keeper
from akoya_gateway.responses.response import Answer
from akoya_gateway.signing.claims import Prepared


@dataclass(slots=True)
class Admitted:
    """The request goes on; `headers` are ours to add to what `Passing.onward` leaves of the client's. `fields`: what
    those say, where that was read. Not frozen for the reason that `Ask` is not."""

    rule: AccessRule
    headers: Headers = field(repr=False)
    grant: Grant | None = None
    owner: str | None = None
    fields: Fields | None = field(default=None, repr=False)


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
        self.standings = Standings(gatekeeper, visitors, keeper, passing)
        """For who signs by himself what `admit_now` would have (`fast_lane.lane`)."""

    def match(self, method: str, path: str) -> RuleMatch | None:
        return self._gatekeeper.match(method, path)

    def needs_owner(self, match: RuleMatch) -> bool:
        return self._gatekeeper.needs_owner(match)

    def admit_now(self, ask: Ask, path: str) -> Admitted | None:
        """The plain case, or None: ask `admit`. Raises `GatewayError` as `admit` does."""
        if self._require_sound is not None:
            self._require_sound(ask)
        match = self._gatekeeper.match(ask.method, path)
        if match is None:
            return None
        fields = self._passing.read(ask.headers)
        if fields.override or self._overridden(ask):
            self._refuse_override(path)
        if not self._gatekeeper.needs_owner(match):
            return Admitted(match.rule, [], None, None, fields)
        if self.standings.serve:
            now = self._clock()
            standing = self.standings.of(fields.session, match, now)
            if standing is None:
                return None
            ours = _signed(standing.prepared, ask, fields.authorities[standing.secure], now)
            return Admitted(match.rule, ours, standing.grant, standing.owner, fields)
        return self._identified_now(ask, match)

    def _identified_now(self, ask: Ask, match: RuleMatch) -> Admitted | None:
        """Where `identity` says who the owner is."""
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
        if names_a_method(ask.headers) or self._overridden(ask):
            self._refuse_override(path)
        return match

    def _overridden(self, ask: Ask) -> bool:
        return self._gatekeeper.goes_by_method and bool(ask.query) and names_a_method_in(ask.query)

    def minds_method(self, path: str) -> bool:
        """Whether the rules of the path go by method, so that an override of it is refused."""
        return self._gatekeeper.goes_by_method and self._gatekeeper.minds_method(path)

    def _refuse_override(self, path: str) -> None:
        """The request tells the app of another method than its own. Raises `UserError` where a rule goes by it."""
        if self.minds_method(path):
            raise UserError("This address takes no method override.", code="method-override")

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
        fields = self._passing.read(ask.headers)
        prepared = self._passing.prepare(decision.rule, decision.grant, held)
        ours = _signed(prepared, ask, fields.authorities[self._passing.secure(decision.rule)], now)
        return Admitted(decision.rule, ours, decision.grant, held.owner, fields)


def _signed(prepared: Prepared, ask: Ask, authority: bytes, now: float) -> Headers:
    """Our headers for this request. Raises `UserError` for a request whose host cannot be told."""
    if not authority:
        raise UserError("The request must name exactly one valid host.", code="bad-host")
    return prepared.headers(
        ask.method.encode(),
        authority,
        ask.raw_path,
        ask.query,
        now,
        content_digest=ask.content_digest,
    )


def judged_path(ask: Ask) -> str:
    """The one normalisation (`access.path_normalization`). Raises `PathRefused`."""
    return judge(ask.raw_path)
