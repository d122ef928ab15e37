"""Who is asking: the session their cookie names, and the owner it or the identity stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

from akoya_gateway.access.request import Ask
from akoya_gateway.authentication.user_identity import Identities, Unsettled, owner_of, trusts
from akoya_gateway.config.model import Identity, IdentitySource
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import KnownSession, Sessions

__all__ = ["ANONYMOUS", "Visitor", "Visitors", "owner_of", "trusts"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """`owner` None: nobody is known. `browser`: the secret that binds authorization attempts to this browser."""

    owner: str | None = None
    session: Session | None = None
    browser: str | None = field(default=None, repr=False)
    identified: bool = False
    """The owner comes from `identity` and outlives the session."""


ANONYMOUS = Visitor()


class Visitors:
    """`identities`: how the app's own user is known; None where the session says who the owner is."""

    def __init__(self, sessions: Sessions, cookies: CookieJar, identities: Identities | None) -> None:
        self._sessions = sessions
        self._cookies = cookies
        self._identities = identities
        self.require_sound = identities.require_sound if identities is not None else None
        """Raises `UserError` for an identity that nobody must see, the upstream included. None: nothing to do."""
        self.by_session = identities is None
        """The session alone says who the owner is."""

    def known(self, cookie_value: str) -> KnownSession | None:
        """The session of a cookie, without waiting: None when the store must be asked first."""
        return self._sessions.known(cookie_value)

    def peek(self, ask: Ask) -> Visitor | None:
        """The visitor without waiting: None when the store or the keys must be asked first (see `of`)."""
        value = self._cookies.session(ask.headers)
        if self._identities is None:
            if value is None:
                return ANONYMOUS
            session = self._sessions.peek(value)
            return None if session is None else Visitor(session.owner, session)
        owner = self._identities.peek(ask)
        if isinstance(owner, Unsettled):
            return None
        session = None if value is None else self._sessions.peek(value)
        if value is not None and (session is None or session.owner != owner):
            return None
        return Visitor(owner, session, identified=owner is not None)

    async def of(self, ask: Ask) -> Visitor:
        """Raises `StoreUnavailable`; never takes an unreadable store for a visitor without a session.

        Raises `UserError` or `OperatorError` where `identity` cannot be settled: nobody becomes a stranger by that.
        """
        owner = None if self._identities is None else await self._identities.owner(ask)
        value = self._cookies.session(ask.headers)
        session = None if value is None else await self._sessions.resolve(value)
        browser = self._cookies.browser(ask.headers)
        if self._identities is None:
            return Visitor(None if session is None else session.owner, session, browser)
        if session is not None and session.owner != owner:
            # The person behind the browser has changed: what the old session could do is over.
            await self._sessions.end(session)
            session = None
        return Visitor(owner, session, browser, identified=owner is not None)


def require_known(visitor: Visitor, identity: Identity) -> None:
    """Where `identity` says who owns grants, nobody connects a bank namelessly: the grant would be nobody's.

    Raises `UserError` (401).
    """
    if identity.source is not IdentitySource.SESSION and not visitor.identified:
        raise UserError("Sign in to the app first.", status=401, code="no-identity", title="You are not signed in")
