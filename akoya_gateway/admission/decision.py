"""The results of an access decision."""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.access.request import Headers
from akoya_gateway.config.model import AccessRule
from akoya_gateway.errors import UserError
from akoya_gateway.grants.grant import Grant, is_public_id
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.claims import PreparedHeaders
from akoya_verify.result import Verified


@dataclass(slots=True, eq=False)
class Admitted:
    """The request is admitted. Instances are shared between requests: do not modify them.

    `prepared` holds the gateway headers, ready to be signed for a request, and `verified` the same claims as
    `scope["akoya"]`. Both are None, as `grant` and `owner`, if the rule requires no session. `others` are the grants of
    the other required connectors, whose bearers are passed as well (`pass_tokens: all`).
    """

    rule: AccessRule
    grant: Grant | None = None
    owner: str | None = None
    prepared: PreparedHeaders | None = None
    verified: Verified | None = None
    others: tuple[Grant, ...] = ()

    def rejected_grants(self, value: bytes | None) -> tuple[Grant, ...]:
        """Return the grants whose tokens Akoya rejected, by the value of the app's `Akoya-Token-Rejected`.

        The value names grants that were passed, by their IDs or connectors. A value that names none, such as 1, means
        the token of `grant`, but the ID of a grant that was not passed means nothing. None is a missing header.
        """
        if value is None or self.grant is None:
            return ()
        passed = (self.grant, *self.others)
        named = {word.strip().decode("latin-1") for word in value.split(b",")}
        found = tuple(grant for grant in passed if not named.isdisjoint((grant.public_id, grant.connector)))
        if found or any(is_public_id(word) for word in named):
            return found
        return passed[:1]

    def headers(
        self,
        verb: bytes,
        authority: bytes,
        raw_path: bytes,
        query: bytes,
        now: float,
        content_digest: bytes | None = None,
    ) -> Headers:
        """Return the gateway headers, signed for this request (parameters as of `PreparedHeaders.headers`).

        Raises `UserError` if the request does not have exactly one valid host, so that `authority` is empty.
        """
        prepared = self.prepared
        if prepared is None:
            return []
        if not authority:
            raise UserError("The request must name exactly one valid host.", code="bad-host")
        return prepared.headers(verb, authority, raw_path, query, now, content_digest=content_digest)


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is denied with this response. `rule` is None for a request that no rule covers."""

    response: Response
    rule: AccessRule | None
    reason: str


Admission = Admitted | Denied
