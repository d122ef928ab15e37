"""Who is asking: the session their cookie names, and the owner it or the identity stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.user_identity import NotCached, UserAuthenticator, is_trusted_peer, owner_of
from akoya_gateway.config.model import Identity, IdentitySource
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.session import Session
from akoya_gateway.sessions.session_store import CachedSession, SessionStore

__all__ = ["ANONYMOUS", "Authenticator", "Principal", "is_trusted_peer", "owner_of"]


@dataclass(frozen=True, slots=True)
class Principal:
    """`owner` None: nobody is known. `browser`: the secret that binds authorization attempts to this browser."""

    owner: str | None = None
    session: Session | None = None
    browser: str | None = field(default=None, repr=False)
    identified: bool = False
    """The owner comes from `identity` and outlives the session."""


ANONYMOUS = Principal()


class Authenticator:
    """`user_authenticator`: how the app's own user is known; None where the session says who the owner is."""

    def __init__(
        self, sessions: SessionStore, cookies: GatewayCookies, user_authenticator: UserAuthenticator | None
    ) -> None:
        self._sessions = sessions
        self._cookies = cookies
        self._user_authenticator = user_authenticator
        self.require_valid_header = user_authenticator.require_valid_header if user_authenticator is not None else None
        """Raises `UserError` for an identity that nobody must see, the upstream included. None: nothing to do."""
        self.uses_sessions = user_authenticator is None
        """The session alone says who the owner is."""

    def cached_session(self, cookie_value: str) -> CachedSession | None:
        """The session of a cookie, without waiting: None when the store must be asked first."""
        return self._sessions.cached_entry(cookie_value)

    def authenticate_cached(self, request: RequestInfo) -> Principal | None:
        """The visitor without waiting: None when the store or the keys must be asked first (see `authenticate`)."""
        value = self._cookies.session(request.headers)
        if self._user_authenticator is None:
            if value is None:
                return ANONYMOUS
            session = self._sessions.get_cached(value)
            return None if session is None else Principal(session.owner, session)
        owner = self._user_authenticator.get_cached(request)
        if isinstance(owner, NotCached):
            return None
        session = None if value is None else self._sessions.get_cached(value)
        if value is not None and (session is None or session.owner != owner):
            return None
        return Principal(owner, session, identified=owner is not None)

    async def authenticate(self, request: RequestInfo) -> Principal:
        """Raises `StoreUnavailable`; never takes an unreadable store for a visitor without a session.

        Raises `UserError` or `OperatorError` where `identity` cannot be settled: nobody becomes a stranger by that.
        """
        owner = None if self._user_authenticator is None else await self._user_authenticator.owner(request)
        value = self._cookies.session(request.headers)
        session = None if value is None else await self._sessions.resolve(value)
        browser = self._cookies.browser(request.headers)
        if self._user_authenticator is None:
            return Principal(None if session is None else session.owner, session, browser)
        if session is not None and session.owner != owner:
            # The person behind the browser has changed: what the old session could do is over.
            await self._sessions.end(session)
            session = None
        return Principal(owner, session, browser, identified=owner is not None)


def require_owner(principal: Principal, identity: Identity) -> None:
    """Where `identity` says who owns grants, nobody connects a bank namelessly: the grant would be nobody's.

    Raises `UserError` (401).
    """
    if identity.source is not IdentitySource.SESSION and not principal.identified:
        raise UserError("Sign in to the app first.", status=401, code="no-identity", title="You are not signed in")
