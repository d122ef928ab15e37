"""Who is asking: the session their cookie names, and the owner it or the identity stands for."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from akoya_gateway.access.ask import Ask
from akoya_gateway.config.model import Config, IdentitySource
from akoya_gateway.errors import UserError
from akoya_gateway.sessions.book import Sessions
from akoya_gateway.sessions.jar import CookieJar
from akoya_gateway.sessions.session import Session


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
    def __init__(self, config: Config, sessions: Sessions, cookies: CookieJar) -> None:
        self._identity = config.identity
        self._header = (config.identity.header or "").lower().encode()
        self._trusted = config.trusted_proxies
        self._sessions = sessions
        self._cookies = cookies

    def peek(self, ask: Ask) -> Visitor | None:
        """The visitor without waiting: None when the store must be asked first (see `of`)."""
        if self._identity.source is not IdentitySource.SESSION:
            return None
        value = self._cookies.session(ask.headers)
        if value is None:
            return ANONYMOUS
        session = self._sessions.peek(value)
        return None if session is None else Visitor(session.owner, session)

    async def of(self, ask: Ask) -> Visitor:
        """Raises `StoreUnavailable`; never takes an unreadable store for a visitor without a session."""
        value = self._cookies.session(ask.headers)
        session = None if value is None else await self._sessions.resolve(value)
        browser = self._cookies.browser(ask.headers)
        if self._identity.source is IdentitySource.SESSION:
            return Visitor(None if session is None else session.owner, session, browser)
        owner = self._identified(ask)
        if session is not None and session.owner != owner:
            # The person behind the browser has changed: what the old session could do is over.
            await self._sessions.end(session)
            session = None
        return Visitor(owner, session, browser, identified=owner is not None)

    def _identified(self, ask: Ask) -> str | None:
        if not trusts(self._trusted, ask.peer):
            return None
        values = [value for name, value in ask.headers if name == self._header]
        if len(values) > 1:
            raise UserError("The identity header occurs more than once.", code="ambiguous-identity")
        return owner_of(values[0].decode("latin-1")) if values and values[0] else None


def owner_of(identity: str) -> str:
    """A stable, opaque owner for the app's own user: it survives key rotation and says nothing in a log."""
    digest = hashlib.sha256(b"akoya-gateway owner\0" + identity.encode()).digest()
    return "usr_" + base64.urlsafe_b64encode(digest[:18]).decode()


def trusts(networks: tuple[IPv4Network | IPv6Network, ...], peer: str | None) -> bool:
    """Whether the TCP peer is one of `trusted_proxies`. A unix socket's peer (None) is trusted if anything is."""
    if not networks:
        return False
    if peer is None:
        return True
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
