"""Authorization attempts: begun in one browser, taken once, by the same browser, within some minutes.

`state` is the only thing that comes back (RFC 6749 section 10.12); everything else about the attempt stays here, under
the digest of `state`, sealed. The browser is known by a cookie of its own, so that an attempt needs no session.
"""

from __future__ import annotations

import hmac
import json
import time
from dataclasses import dataclass, field

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Limits
from akoya_gateway.errors import OperatorError
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.random_tokens import NewToken, digest, is_token, new_token
from akoya_gateway.store.base import Record
from akoya_gateway.store.encrypted_store import EncryptedStore

KIND = "attempt"

COUNT_VALID = 1.0
"""Seconds for which the number of all pending attempts is believed."""


class TooManyAttempts(OperatorError):
    """`limits.attempts` are pending in all."""

    code = "too-many-attempts"
    title = "Too many people are connecting a bank right now"


@dataclass(frozen=True, slots=True)
class AuthorizationAttempt:
    """`connector` is its key in gateway.yaml, `return_to` was judged when it began, `owner` is who was known then.
    `session` is the id of the session whose cookie the browser showed then, be it alive or dead."""

    connector: str
    return_to: str
    started_at: float
    owner: str | None = None
    code_verifier: Secret | None = field(default=None, repr=False)
    nonce: Secret | None = field(default=None, repr=False)
    session: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    """No such attempt: never begun, taken before, too old, or pushed out by the browser's later ones."""


@dataclass(frozen=True, slots=True)
class AttemptOfOtherBrowser:
    """Begun in another browser. It is used up all the same."""


class AuthorizationAttempts:
    def __init__(
        self, store: EncryptedStore, limits: Limits, *, clock: Clock = time.time, random: NewToken = new_token
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._random = random
        self._pending = 0
        self._counted_at = float("-inf")

    async def begin(
        self,
        connector: str,
        browser: str,
        return_to: str,
        *,
        owner: str | None = None,
        code_verifier: str | None = None,
        nonce: str | None = None,
        session: str | None = None,
    ) -> str:
        """Remember the attempt, durably; returns its `state`, 256 random bits. `browser` is a `new_token` that the
        browser holds in its cookie. The browser's oldest attempts make room; too many in all raise `TooManyAttempts`.
        """
        if not is_token(browser):
            raise ValueError("an attempt is bound to a browser by a token of ours")
        await self._check_total()
        group = _browser(browser)
        await self._make_room(group)
        now = self._clock()
        document = {
            "format": 1,
            "connector": connector,
            "return_to": return_to,
            "started_at": now,
            "owner": owner,
            "code_verifier": code_verifier,
            "nonce": nonce,
            "session": session,
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        while True:
            state = self._random()
            record = Record(KIND, _key(state), body, 1, group, now + self._limits.attempt_lifetime)
            if await self._store.put(record):
                self._pending += 1
                return state

    async def consume(
        self, state: str, browser: str | None
    ) -> AuthorizationAttempt | AttemptUnknown | AttemptOfOtherBrowser:
        """The attempt, once: whatever comes of it, nobody gets it again. `browser`: the cookie's value, if any."""
        if not is_token(state):
            return AttemptUnknown()
        record = await self._store.take(KIND, _key(state))
        if record is None:
            return AttemptUnknown()
        if browser is None or not hmac.compare_digest(record.group, _browser(browser)):
            return AttemptOfOtherBrowser()
        document = json.loads(record.body)
        attempt = AuthorizationAttempt(
            connector=document["connector"],
            return_to=document["return_to"],
            started_at=document["started_at"],
            owner=document["owner"],
            code_verifier=_secret(document["code_verifier"]),
            nonce=_secret(document["nonce"]),
            session=document.get("session"),  # An older release, which may run beside us, leaves it out.
        )
        # The store forgets what has ended, but by its own clock; ours is the one that counts.
        too_old = self._clock() >= attempt.started_at + self._limits.attempt_lifetime
        return AttemptUnknown() if too_old else attempt

    async def _check_total(self) -> None:
        now = self._clock()
        if not 0.0 <= now - self._counted_at < COUNT_VALID:
            self._pending = await self._store.count(KIND)
            self._counted_at = now
        if self._pending >= self._limits.attempts:
            raise TooManyAttempts("Please try again in some minutes.", retry_after=60)

    async def _make_room(self, group: str) -> None:
        pending = await self._store.find(KIND, group)
        surplus = len(pending) + 1 - self._limits.attempts_per_browser
        if surplus <= 0:
            return
        oldest_first = sorted(pending, key=lambda record: record.expires_at or 0.0)
        for record in oldest_first[:surplus]:
            await self._store.delete(KIND, record.key)


def _key(state: str) -> str:
    return digest("akoya-gateway state", state)


def _browser(browser: str) -> str:
    return digest("akoya-gateway browser", browser)


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)
