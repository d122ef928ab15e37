"""What an app has decided about verification, shared by the ASGI and the WSGI middleware."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from akoya_gateway.verify.assertion import verify_assertion
from akoya_gateway.verify.keys import KeySource
from akoya_gateway.verify.message import RawHeaders, verify
from akoya_gateway.verify.outcome import NotVerified, Verified
from akoya_gateway.verify.replay import ReplayCache

_log = logging.getLogger("akoya_gateway.verify")

PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Policy:
    """With `issuer` and `audience` an `Akoya-Assertion` is wanted, without them an RFC 9421 signature."""

    keys: KeySource
    issuer: str | None
    audience: str | None
    skew: float
    replay: ReplayCache | None
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        if (self.issuer is None) != (self.audience is None):
            raise ValueError("issuer and audience belong together: both for the jwt scheme, none for RFC 9421")

    def judge(
        self, method: str, authority: str, path: str, query: str, headers: RawHeaders, *, keys: KeySource | None = None
    ) -> Verified:
        """Raises `NotVerified`. `keys` stands in for the policy's own."""
        source = self.keys if keys is None else keys
        now = self.clock()
        if self.issuer is not None and self.audience is not None:
            return verify_assertion(
                headers, source, self.issuer, self.audience, now, skew=self.skew, replay=self.replay
            )
        return verify(method, authority, path, query, headers, source, now, skew=self.skew, replay=self.replay)


def refusal(fault: NotVerified) -> tuple[int, bytes]:
    """Status and problem document (RFC 9457): 503 when the keys could not be had, else 401."""
    status, title = (503, "Service Unavailable") if fault.reason == "keys-unavailable" else (401, "Unauthorized")
    _log.warning("request refused: %s", fault.reason, extra={"reason": fault.reason, "detail": fault.detail})
    return status, json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": fault.reason}
    ).encode()


def is_ours(name: str) -> bool:
    """Whether an app could take a header of this name for one of the gateway's."""
    return name.lower().replace("_", "-").replace(".", "-").startswith("akoya-")
