"""Verification settings, exempt paths and error responses, shared by the ASGI and the WSGI middleware."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from akoya_verify.jwt_assertion import verify_assertion
from akoya_verify.keys import KeySource
from akoya_verify.message_signatures import RawHeaders, verify
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import NotVerified, Verified

_log = logging.getLogger("akoya_verify")

PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Policy:
    """Verification settings. Requires an `Akoya-Assertion` if `issuer` is set, else an RFC 9421 signature."""

    keys: KeySource
    issuer: str | None
    audience: str | None
    skew: float
    replay: ReplayCache | None
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        if (self.issuer is None) != (self.audience is None):
            raise ValueError("issuer and audience belong together: both for the jwt scheme, none for RFC 9421")

    def verify(
        self, method: str, authority: str, path: str, query: str, headers: RawHeaders, *, keys: KeySource | None = None
    ) -> Verified:
        """Verify a request. Raises `NotVerified`.

        Args:
            keys: Used instead of the policy's own keys.
        """
        source = self.keys if keys is None else keys
        now = self.clock()
        if self.issuer is not None and self.audience is not None:
            return verify_assertion(
                headers, source, self.issuer, self.audience, now, skew=self.skew, replay=self.replay
            )
        return verify(method, authority, path, query, headers, source, now, skew=self.skew, replay=self.replay)


class Exempt:
    """Paths that are not verified: exact paths such as `/healthz`, and patterns such as `/static/*`.

    A pattern never matches a path that two parties may interpret differently: one with dot segments, empty segments,
    backslashes, or a percent sign that is left after decoding.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        """Raises ValueError for a pattern that is not a path."""
        for pattern in patterns:
            if not pattern.startswith("/") or "*" in pattern.removesuffix("/*"):
                raise ValueError(f"{pattern!r} is neither a path such as /healthz nor a pattern such as /static/*")
        self._exact = frozenset(one for one in patterns if not one.endswith("/*"))
        self._below = tuple(one[:-1] for one in patterns if one.endswith("/*"))

    def __contains__(self, path: str) -> bool:
        return path in self._exact or (path.startswith(self._below) and _is_plain(path))


def _is_plain(path: str) -> bool:
    segments = path.split("/")[1:]
    return "\\" not in path and "%" not in path and not {".", ".."} & {*segments} and "" not in segments[:-1]


def refusal(fault: NotVerified) -> tuple[int, bytes]:
    """Log the failure and return the status and problem document (RFC 9457): 503 if keys are unavailable, else 401."""
    status, title = (503, "Service Unavailable") if fault.reason == "keys-unavailable" else (401, "Unauthorized")
    _log.warning("request refused: %s", fault.reason, extra={"reason": fault.reason, "detail": fault.detail})
    return status, json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": fault.reason}
    ).encode()


def is_gateway_header(name: str) -> bool:
    """Return whether an app could mistake a header of this name for a gateway header."""
    return name.lower().replace("_", "-").replace(".", "-").startswith("akoya-")
