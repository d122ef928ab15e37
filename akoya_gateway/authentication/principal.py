"""Authenticates a request: its session, from the cookie, and its owner, from the session or from `identity`."""

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
    """The authenticated caller of a request."""

    owner: str | None = None
    """None if the caller is anonymous."""
    session: Session | None = None
    browser: str | None = field(default=None, repr=False)
    """The secret that binds authorization attempts to this browser."""
    identified: bool = False
    """True if the owner comes from `identity` and therefore outlives the session."""


ANONYMOUS = Principal()


class Authenticator:
    """Authenticates requests.

    Args:
        user_authenticator: Authenticates the app's own user. None if the owner comes from the session.
    """

    def __init__(
        self, sessions: SessionStore, cookies: GatewayCookies, user_authenticator: UserAuthenticator | None
    ) -> None:
        self._sessions = sessions
        self._cookies = cookies
        self._user_authenticator = user_authenticator
        self.require_valid_header = user_authenticator.require_valid_header if user_authenticator is not None else None
        """Raises `UserError` for an identity header that must not reach the upstream. None: nothing to check."""
        self.uses_sessions = user_authenticator is None
        """True if the owner comes from the session alone."""

    def cached_session(self, cookie_value: str) -> CachedSession | None:
        """Return the cached session of a cookie, or None if it must be read from the store. Does not block."""
        return self._sessions.cached_entry(cookie_value)

    def authenticate_cached(self, request: RequestInfo) -> Principal | None:
        """Return the caller without blocking.

        Returns:
            None if the store or the keys must be read first; call `authenticate` then.
        """
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
        """Return the caller, reading the store and the keys as needed.

        A failure is raised and never treated as an anonymous caller.

        Raises:
            StoreUnavailable: The store cannot be read.
            UserError: The identity header or token is not valid.
            OperatorError: The keys of `identity` cannot be fetched.
        """
        owner = None if self._user_authenticator is None else await self._user_authenticator.owner(request)
        value = self._cookies.session(request.headers)
        session = None if value is None else await self._sessions.resolve(value)
        browser = self._cookies.browser(request.headers)
        if self._user_authenticator is None:
            return Principal(None if session is None else session.owner, session, browser)
        if session is not None and session.owner != owner:
            # The app's user in this browser has changed: end the session of the previous user.
            await self._sessions.end(session)
            session = None
        return Principal(owner, session, browser, identified=owner is not None)


def require_owner(principal: Principal, identity: Identity) -> None:
    """Require an identified user if grants belong to the owner from `identity`.

    A bank connected by an anonymous caller would belong to no user.

    Raises:
        UserError: The user is not signed in (401).
    """
    if identity.source is not IdentitySource.SESSION and not principal.identified:
        raise UserError("Sign in to the app first.", status=401, code="no-identity", title="You are not signed in")
