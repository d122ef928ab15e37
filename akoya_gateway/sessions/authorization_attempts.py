"""Authorization attempts. Each is consumed once, by the browser that started it, within `limits.attempt_lifetime`.

Only `state` comes back from the provider (RFC 6749 section 10.12). Everything else about the attempt is stored
encrypted under the digest of `state`. The browser is identified by a separate cookie, so an attempt needs no session.
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
"""Seconds for which the count of all pending attempts is cached."""


class TooManyAttempts(OperatorError):
    """The total number of pending attempts has reached `limits.attempts`."""

    code = "too-many-attempts"
    title = "Too many people are connecting a bank right now"


@dataclass(frozen=True, slots=True)
class AuthorizationAttempt:
    """One authorization attempt.

    `connector` is its key in gateway.yaml. `return_to` was validated when the attempt began. `owner` is the owner that
    was known at that time. `session` is the ID that belongs to the session cookie of that request, whether or not the
    session still existed.
    """

    connector: str
    return_to: str
    started_at: float
    owner: str | None = None
    code_verifier: Secret | None = field(default=None, repr=False)
    nonce: Secret | None = field(default=None, repr=False)
    session: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    """No such attempt: never started, already consumed, expired, or displaced by later attempts of the same browser."""


@dataclass(frozen=True, slots=True)
class AttemptOfOtherBrowser:
    """The attempt was started in another browser. It has been consumed nevertheless."""


class AuthorizationAttempts:
    """Stores authorization attempts and limits their number."""

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
        """Store the attempt durably and return its `state`, 256 random bits.

        If the browser has too many pending attempts, its oldest ones are deleted.

        Args:
            connector: The connector's key in gateway.yaml.
            browser: The value of the browser cookie, a `new_token`.
            return_to: The validated URL to return to.
            owner: The owner, if known.
            code_verifier: The PKCE code verifier, if used.
            nonce: The nonce of the request, if used.
            session: The ID of the browser's session, if it sent a session cookie.

        Raises:
            TooManyAttempts: Too many attempts are pending in total.
            ValueError: `browser` does not have the form of a `new_token`.
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
        """Consume the attempt: whatever the result, no later call returns it.

        Args:
            state: The `state` of the callback.
            browser: The value of the browser cookie, or None if the request has none.
        """
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
            session=document.get("session"),  # An older release, which may use the same store, omits it.
        )
        # The store expires attempts by its own clock, but only the gateway's clock is authoritative.
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
