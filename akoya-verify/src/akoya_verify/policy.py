"""Verification settings, exempt paths and error responses, shared by the middleware of every framework."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from akoya_verify.jwt_assertion import verify_assertion
from akoya_verify.keys import Key, KeySource
from akoya_verify.message_signatures import RawHeaders, fold, verify
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import NotVerified, Verified

_log = logging.getLogger("akoya_verify")

PROBLEM = "application/problem+json"
NO_GATEWAY = (
    "nothing in this process has verified the request: wrap the app in akoya_gateway.Gateway (ASGI only), "
    "or configure the keys of the gateway in front of it"
)

SignedRequest = tuple[str, str, str, str, RawHeaders]
"""Method, authority, path, query and headers, as `verify` takes them."""


class Policy:
    """Verifies requests: an `Akoya-Assertion` if `issuer` is set, else an RFC 9421 signature."""

    def __init__(
        self,
        keys: KeySource | None,
        *,
        required: bool = True,
        issuer: str | None = None,
        audience: str | None = None,
        skew: float = 5.0,
        replay: ReplayCache | None = None,
        exempt: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        root_path: str = "",
    ) -> None:
        """Validate the settings, which `AsgiVerifier` describes. Raises ValueError."""
        if (issuer is None) != (audience is None):
            raise ValueError("issuer and audience belong together: both for the jwt scheme, none for RFC 9421")
        self.keys = keys
        self._required = required
        self._issuer = issuer
        self._audience = audience
        self._skew = skew
        self._replay = replay
        self._exempt = Exempt(exempt)
        self._clock = clock
        self._root_path = root_path

    def is_verified(self, holder: Mapping[str, Any]) -> bool:
        """Return whether a gateway or verifier in this process has set `akoya` in the scope or environ of a request.

        No client can set it. None, which a `Gateway` sets for public paths, counts only if there are no keys: with
        keys, None may also come from an outer verifier that lets requests pass unverified.
        """
        if "akoya" not in holder:
            return False
        return isinstance(holder["akoya"], Verified) or (holder["akoya"] is None and self.keys is None)

    def passes_unverified(self, mounted: str, path: str, header_names: Iterable[str]) -> bool:
        """Return whether a request may pass unverified: its path is exempt, or it has and needs no `Akoya-*` header.

        Args:
            mounted: Where the server says that the app is mounted. Raises `NotVerified` unless it is `root_path`.
            path: The decoded path.
            header_names: The names of all headers.
        """
        if mounted != self._root_path:
            raise NotVerified("root-path", f"the server says {mounted!r}, configured is {self._root_path!r}")
        return path in self._exempt or not (self._required or any(map(is_gateway_header, header_names)))

    async def verify_without_blocking(self, request: SignedRequest) -> Verified:
        """Verify a request, in a thread if keys have to be fetched. Raises `NotVerified`."""
        peek: Callable[[str], Key | None] | None = getattr(self.keys, "peek", None)
        if peek is None:
            return self.verify(*request)
        try:
            may_renew = getattr(self.keys, "may_renew", None)
            return self.verify(*request, keys=_CachedKeys(peek, may_renew))
        except _KeyNotCached:
            return await asyncio.to_thread(self.verify, *request)

    def verify(
        self, method: str, authority: str, path: str, query: str, headers: RawHeaders, *, keys: KeySource | None = None
    ) -> Verified:
        """Verify a request. Raises `NotVerified`.

        Args:
            keys: Used instead of the policy's own keys.
        """
        source = self.keys if keys is None else keys
        if source is None:
            raise NotVerified("no-gateway", NO_GATEWAY)
        now = self._clock()
        if self._issuer is not None and self._audience is not None:
            return verify_assertion(
                headers, source, self._issuer, self._audience, now, skew=self._skew, replay=self._replay
            )
        return verify(method, authority, path, query, headers, source, now, skew=self._skew, replay=self._replay)


class _KeyNotCached(Exception):
    pass


class _CachedKeys:
    """A key source that raises `_KeyNotCached` instead of fetching keys, because fetching blocks."""

    def __init__(self, peek: Callable[[str], Key | None], may_renew: Callable[[], bool] | None) -> None:
        self._peek = peek
        self._may_renew = may_renew

    def get(self, key_id: str, /) -> Key:
        key = self._peek(key_id)
        if key is None:
            raise _KeyNotCached
        return key

    def renewed(self, key: Key, /) -> Key | None:
        """Return None: without a fetch the key cannot have changed."""
        if self._may_renew is not None and self._may_renew():
            raise _KeyNotCached
        return None


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
    """Log the failure and return the status and problem document (RFC 9457).

    The status is 503 if keys are unavailable or no gateway is configured, else 401.
    """
    is_operators = fault.reason in {"keys-unavailable", "no-gateway"}
    status, title = (503, "Service Unavailable") if is_operators else (401, "Unauthorized")
    _log.warning(
        "request refused: %s: %s",
        fault.reason,
        fault.detail,
        extra={"reason": fault.reason, "detail": fault.detail},
    )
    return status, json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": fault.reason}
    ).encode()


def is_gateway_header(name: str) -> bool:
    """Return whether an app could mistake a header of this name for a gateway header."""
    return fold(name).startswith("akoya-")
