"""The results of an access decision."""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.access.request import Headers
from akoya_gateway.config.model import AccessRule
from akoya_gateway.errors import UserError
from akoya_gateway.grants.grant import Grant
from akoya_gateway.responses.response import Response
from akoya_gateway.signing.claims import PreparedHeaders
from akoya_verify.result import Verified


class Admitted:
    """The request is admitted. Instances are shared between requests: do not modify them.

    `prepared` holds the gateway headers, ready to be signed for a request, and `verified` the same claims as
    `scope["akoya"]`. Both are None, as `grant` and `owner`, if the rule requires no session.
    """

    __slots__ = ("grant", "owner", "prepared", "rule", "verified")

    def __init__(
        self,
        rule: AccessRule,
        grant: Grant | None = None,
        owner: str | None = None,
        prepared: PreparedHeaders | None = None,
        verified: Verified | None = None,
    ) -> None:
        self.rule = rule
        self.grant = grant
        self.owner = owner
        self.prepared = prepared
        self.verified = verified

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
