"""Sessions in the vault: found by the cookie's value, kept under its digest."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Cookie
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.session import Session, decode, encode, seen
from akoya_gateway.sessions.tokens import NewToken, digest, is_token, new_token
from akoya_gateway.store.record import Record
from akoya_gateway.store.vault import Vault

KIND = "session"

TOUCH = 0.05
"""Part of the idle time for which a sign of life is not written again. A session may end by that much early."""


@dataclass(slots=True, eq=False)
class KnownSession:
    """A session looked up a moment ago: what holds it may go by it until `valid_until`, which the session's end sets to
    the past."""

    session: Session
    valid_until: float


class Sessions:
    """A store that is away raises `StoreUnavailable`: that is a 503 and never a logout, the cookie stays.

    What this process ends is ended here at once; another replica may believe it for `valid` seconds more.
    """

    def __init__(
        self,
        vault: Vault,
        cookie: Cookie,
        *,
        clock: Clock = time.time,
        random: NewToken = new_token,
        valid: float = 1.0,
        size: int = 50_000,
    ) -> None:
        self._vault = vault
        self._cookie = cookie
        self._clock = clock
        self._random = random
        self._valid = valid
        self._size = size
        # By the cookie's value, so that a request whose session is known costs no digest.
        self._cache: OrderedDict[str, KnownSession] = OrderedDict()
        self._values: dict[str, str] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def known(self, cookie_value: str) -> KnownSession | None:
        """The session, if it was looked up a moment ago; None says to ask `resolve`."""
        known = self._cache.get(cookie_value)
        # More than it was given: the clock was set back.
        if known is None or not 0.0 < known.valid_until - self._clock() <= self._valid:
            return None
        self._cache.move_to_end(cookie_value)
        return known

    def peek(self, cookie_value: str) -> Session | None:
        """As `known`."""
        known = self.known(cookie_value)
        return None if known is None else known.session

    async def resolve(self, cookie_value: str) -> Session | None:
        """The live session of this cookie, or None: unknown, ended, expired, or not of our making.

        Notes the sign of life, but not each time. Raises `StoreUnavailable`, `UndecryptableRecord`.
        """
        if not is_token(cookie_value):
            return None
        record = await self._vault.get(KIND, _id(cookie_value))
        if record is None or record.key in self._ended:
            return None
        session = decode(record.key, record.version, record.body)
        now = self._clock()
        if now >= session.ends_at(self._cookie):
            return None
        return self._remember(await self._touched(session, now), cookie_value)

    async def start(self, owner: str | None = None) -> tuple[Session, str]:
        """A new session, durable, and the value for its cookie, which is known to nobody else."""
        now = self._clock()
        owner = owner if owner is not None else f"own_{self._random()}"
        return await self._create(Session("", owner, created_at=now, seen_at=now, csrf=Secret(self._random())))

    async def renew(self, session: Session) -> tuple[Session, str]:
        """The same session under a new id and a new CSRF secret, because its rights grow; the old id dies.

        Its age stays. If the store fails half-way the old cookie goes on working.
        """
        renewed = await self._create(replace(session, seen_at=self._clock(), csrf=Secret(self._random())))
        await self.end(session)
        return renewed

    async def end(self, session: Session) -> None:
        """Gone, everywhere within `valid` seconds."""
        await self._vault.delete(KIND, session.id)
        _expire(self._cache.pop(self._values.pop(session.id, ""), None))
        # A look-up that read the record just before must not bring it back.
        self._ended[session.id] = None
        while len(self._ended) > self._size:
            self._ended.popitem(last=False)

    async def of(self, owner: str) -> tuple[Session, ...]:
        """The owner's sessions that have not ended, the most recently seen first. Raises `StoreUnavailable`."""
        now = self._clock()
        records = await self._vault.find(KIND, digest("akoya-gateway owner", owner))
        sessions = [decode(record.key, record.version, record.body) for record in records]
        living = [session for session in sessions if now < session.ends_at(self._cookie)]
        return tuple(sorted(living, key=lambda session: -session.seen_at))

    async def _create(self, session: Session) -> tuple[Session, str]:
        while True:
            cookie_value = self._random()
            created = replace(session, id=_id(cookie_value), version=1)
            if await self._vault.put(self._record(created)):
                return self._remember(created, cookie_value), cookie_value

    async def _touched(self, session: Session, now: float) -> Session:
        if now - session.seen_at < TOUCH * self._cookie.idle:
            return session
        touched = seen(session, now)
        try:
            # False: another request was first, or the session has just ended; the next look-up will tell.
            return touched if await self._vault.put(self._record(touched)) else session
        except StoreUnavailable:
            # A store that is read-only for the moment still knows the session.
            return session

    def _record(self, session: Session) -> Record:
        return Record(
            KIND,
            session.id,
            encode(session),
            session.version,
            group=digest("akoya-gateway owner", session.owner),
            expires_at=session.ends_at(self._cookie),
        )

    def _remember(self, session: Session, cookie_value: str) -> Session:
        if session.id not in self._ended:
            until = min(self._clock() + self._valid, session.ends_at(self._cookie))
            _expire(self._cache.get(cookie_value))
            self._cache[cookie_value] = KnownSession(session, until)
            self._cache.move_to_end(cookie_value)
            self._values[session.id] = cookie_value
            while len(self._cache) > self._size:
                _, oldest = self._cache.popitem(last=False)
                self._values.pop(oldest.session.id, None)
                _expire(oldest)
        return session


def _expire(known: KnownSession | None) -> None:
    """What leaves the cache is not heard of again when its session ends, so nobody may go by it any more."""
    if known is not None:
        known.valid_until = float("-inf")


def _id(cookie_value: str) -> str:
    return digest("akoya-gateway session", cookie_value)
