"""Stores sessions encrypted, under the digest of the cookie's value."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Cookie
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.random_tokens import NewToken, digest, is_token, new_token
from akoya_gateway.sessions.session import Session, SessionGone, decode, encode, id_of, touch
from akoya_gateway.store.base import Record
from akoya_gateway.store.cache_entry import REFRESH_FRACTION, VALID_SECONDS, CacheEntry
from akoya_gateway.store.encrypted_store import EncryptedStore

KIND = "session"

TOUCH_FRACTION = 0.05
"""Fraction of the idle timeout within which `seen_at` is not written again. A session may expire early by that much."""

RESTORE, RESTORE_WAIT = 60.0, 5.0
"""Seconds for which restoring a session is retried after a failed renewal, and how many of them the caller waits."""


@dataclass(slots=True, eq=False)
class CachedSession(CacheEntry):
    """A cached session. Holders of the entry see when the session ends, because the entry is then expired."""

    session: Session


class SessionStore:
    """Stores, caches and renews sessions.

    If the store is unavailable, methods raise `StoreUnavailable`. That results in a 503 and never in a logout; the
    browser keeps its cookie. A session that this process ends is invalid here at once. Another replica may accept it
    for up to `valid` seconds longer.
    """

    def __init__(
        self,
        store: EncryptedStore,
        cookie: Cookie,
        *,
        clock: Clock = time.time,
        random: NewToken = new_token,
        valid: float = VALID_SECONDS,
        max_entries: int = 50_000,
    ) -> None:
        self._store = store
        self._cookie = cookie
        self._clock = clock
        self._random = random
        self._valid = valid
        self._max_entries = max_entries
        # Keyed by the cookie's value, so that a cached session needs no digest.
        self._cache: OrderedDict[str, CachedSession] = OrderedDict()
        self._cookie_values: dict[str, str] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._reads: dict[str, asyncio.Task[Session | None]] = {}
        self._restoring: set[asyncio.Future[None]] = set()

    def cached_entry(self, cookie_value: str) -> CachedSession | None:
        """Return the cached entry of this cookie, or None, in which case the caller must use `resolve`.

        Starts a background refresh if the entry is due for one.
        """
        cached, now = self._cache.get(cookie_value), self._clock()
        if cached is None or not cached.is_valid(now, self._valid):
            return None
        if cached.needs_refresh(now):
            self._start_read(cookie_value)
        self._cache.move_to_end(cookie_value)
        return cached

    def get_cached(self, cookie_value: str) -> Session | None:
        """Return the cached session of this cookie, or None. See `cached_entry`."""
        cached = self.cached_entry(cookie_value)
        return None if cached is None else cached.session

    async def resolve(self, cookie_value: str) -> Session | None:
        """Return the live session of this cookie, or None if it is unknown, ended, expired or malformed.

        Updates `seen_at`, but not on every call. Raises `StoreUnavailable` and `UndecryptableRecord`.
        """
        if not is_token(cookie_value):
            return None
        # Shielded: the cancellation of one caller must not cancel the lookup for the others.
        session = await asyncio.shield(self._start_read(cookie_value))
        # The session may have ended while this caller waited.
        return None if session is None or session.id in self._ended else session

    def _start_read(self, cookie_value: str) -> asyncio.Task[Session | None]:
        """Return the lookup in flight for this cookie, or start one. All callers share it."""
        look = self._reads.get(cookie_value)
        if look is None:
            look = self._reads[cookie_value] = asyncio.ensure_future(self._read(cookie_value))
            look.add_done_callback(_retrieve_exception)
        return look

    async def _read(self, cookie_value: str) -> Session | None:
        try:
            return await self._stored(cookie_value)
        finally:
            del self._reads[cookie_value]

    async def _stored(self, cookie_value: str) -> Session | None:
        record = await self._store.get(KIND, id_of(cookie_value))
        if record is None or record.key in self._ended:
            self._forget(cookie_value)
            return None
        session = decode(record.key, record.version, record.body)
        now = self._clock()
        if now >= session.ends_at(self._cookie):
            self._forget(cookie_value)
            return None
        return self._cache_session(await self._touched(session, now), cookie_value)

    async def start(self, owner: str | None = None) -> tuple[Session, str]:
        """Create a durable session and return it with its cookie value, which is never written to the store."""
        now = self._clock()
        owner = owner if owner is not None else f"own_{self._random()}"
        return await self._create(Session("", owner, created_at=now, seen_at=now, csrf=Secret(self._random())))

    async def renew(self, session: Session) -> tuple[Session, str]:
        """Replace the session by one with a new ID and CSRF token because it gains rights; the old ID becomes invalid.

        The age of the session does not change. If the store fails half-way, the old cookie must keep working: the old
        session is restored as soon as the store accepts the write, for at most `RESTORE` seconds.

        Of any number of concurrent callers one gets the renewed session. The others get `SessionGone`, because an
        attacker who planted the old ID may send a request at the same moment as the victim.
        """
        renewed, cookie_value = await self._create(replace(session, seen_at=self._clock(), csrf=Secret(self._random())))
        try:
            mine = await self.end(session)
        except Exception:
            # The old session may have been deleted nevertheless, and no browser has the new cookie. The new cookie must
            # not be issued either: if the old session still exists, an attacker who planted its ID would share the
            # owner with it.
            restoring = asyncio.ensure_future(self._restored(renewed, session))
            self._restoring.add(restoring)
            restoring.add_done_callback(self._restoring.discard)
            await asyncio.wait({restoring}, timeout=RESTORE_WAIT)
            raise
        if not mine:
            with contextlib.suppress(StoreUnavailable):
                await self.end(renewed)
            raise SessionGone("Connect the bank again.")
        return renewed, cookie_value

    async def _restored(self, renewed: Session, session: Session) -> None:
        """Call `take_back` until the store accepts it, unless another caller has renewed the old session meanwhile.

        Such a caller wrote its renewed session before it deleted the old one, so `for_owner` finds it. This is checked
        before the old session is written and again afterwards.
        """
        deadline, pause = time.monotonic() + RESTORE, 0.05
        while time.monotonic() < deadline and session.id not in self._ended:
            with contextlib.suppress(Exception):
                if await self._only(renewed, session):
                    await self.take_back(renewed, session)
                    if not await self._only(renewed, session):
                        await self.end(session)
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _only(self, *sessions: Session) -> bool:
        """Return True if the owner has no other sessions than these."""
        ids = {session.id for session in sessions}
        return all(each.id in ids for each in await self.for_owner(sessions[0].owner))

    async def take_back(self, renewed: Session, session: Session) -> None:
        """Undo a renewal because the rights have not grown after all: restore `session` and end `renewed`."""
        await self._store.put(self._record(replace(session, version=1)))
        self._ended.pop(session.id, None)
        with contextlib.suppress(StoreUnavailable):
            await self.end(renewed)  # No browser has its cookie.

    async def end(self, session: Session) -> bool:
        """End the session and return True if this call ended it.

        Other replicas stop accepting the session within `valid` seconds.
        """
        ended = await self._store.delete(KIND, session.id)
        _expire(self._cache.pop(self._cookie_values.pop(session.id, ""), None))
        # A lookup that read the record just before must not put it back into the cache.
        self._ended[session.id] = None
        while len(self._ended) > self._max_entries:
            self._ended.popitem(last=False)
        return ended

    async def for_owner(self, owner: str) -> tuple[Session, ...]:
        """Return the owner's live sessions, the most recently seen first. Raises `StoreUnavailable`."""
        now = self._clock()
        records = await self._store.find(KIND, digest("akoya-gateway owner", owner))
        sessions = [decode(record.key, record.version, record.body) for record in records]
        living = [session for session in sessions if now < session.ends_at(self._cookie)]
        return tuple(sorted(living, key=lambda session: -session.seen_at))

    async def _create(self, session: Session) -> tuple[Session, str]:
        while True:
            cookie_value = self._random()
            created = replace(session, id=id_of(cookie_value), version=1)
            if await self._store.put(self._record(created)):
                return self._cache_session(created, cookie_value), cookie_value

    async def _touched(self, session: Session, now: float) -> Session:
        if now - session.seen_at < TOUCH_FRACTION * self._cookie.idle:
            return session
        touched = touch(session, now)
        try:
            # If `put` returns False, another request was first, or the session has just ended; the next lookup finds
            # out.
            return touched if await self._store.put(self._record(touched)) else session
        except StoreUnavailable:
            # A store that is temporarily read-only can still return the session.
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

    def _cache_session(self, session: Session, cookie_value: str) -> Session:
        if session.id not in self._ended:
            now = self._clock()
            until = min(now + self._valid, session.ends_at(self._cookie))
            _expire(self._cache.get(cookie_value))
            self._cache[cookie_value] = CachedSession(until, min(now + REFRESH_FRACTION * self._valid, until), session)
            self._cache.move_to_end(cookie_value)
            self._cookie_values[session.id] = cookie_value
            while len(self._cache) > self._max_entries:
                _, oldest = self._cache.popitem(last=False)
                self._cookie_values.pop(oldest.session.id, None)
                _expire(oldest)
        return session

    def _forget(self, cookie_value: str) -> None:
        """Drop the cache entry of a session that has ended elsewhere."""
        cached = self._cache.pop(cookie_value, None)
        if cached is not None:
            self._cookie_values.pop(cached.session.id, None)
            cached.expire()


def _expire(known: CachedSession | None) -> None:
    """Expire an entry that leaves the cache: the cache can no longer invalidate it when the session ends."""
    if known is not None:
        known.expire()


def _retrieve_exception(look: asyncio.Task[Session | None]) -> None:
    """Retrieve the exception so that asyncio does not log it. The next caller retries the lookup."""
    if not look.cancelled():
        look.exception()
