"""The gateway's two cookies for one configuration: reads them from requests and writes them to responses."""

from __future__ import annotations

import time
from collections.abc import Iterable

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Cookie, Seconds
from akoya_gateway.errors import UserError
from akoya_gateway.log import logger
from akoya_gateway.sessions.cookies import (
    browser_cookie_name,
    delete_cookie,
    gateway_cookie_names,
    is_sent_twice,
    read_cookie,
    set_browser_cookie,
    set_cookie,
    strip_cookies,
)
from akoya_gateway.sessions.random_tokens import new_token
from akoya_gateway.sessions.session import Session

Headers = Iterable[tuple[bytes, bytes]]


_log = logger(__name__)


class CookieSentTwice(UserError):
    """Another app on this host has set a cookie of the same name for another path or domain.

    It cannot be determined which of the two is the gateway's, so the request has no session, and an authorization
    attempt could not succeed.
    """

    code = "cookie-twice"
    title = "Your browser sends two cookies with the same name"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Another app on this address also sets a cookie named {name}. "
            "Delete the cookies of this address and try again."
        )


class GatewayCookies:
    """Reads and writes the session cookie and the browser cookie.

    `attempt_lifetime` is the Max-Age of the browser cookie; it must be at least the lifetime of an attempt.
    """

    def __init__(self, cookie: Cookie, attempt_lifetime: Seconds, clock: Clock = time.time) -> None:
        self._cookie = cookie
        self._attempt_lifetime = attempt_lifetime
        self._clock = clock
        self._session_name = cookie.name.encode()
        self._browser_name = browser_cookie_name(cookie).encode()
        self._names = gateway_cookie_names(cookie)
        self._twice_logged = False

    def session(self, headers: Headers) -> str | None:
        """Return the value of the session cookie, or None if the request has none or two."""
        return _read(headers, self._session_name)

    def browser(self, headers: Headers) -> str | None:
        """Return the secret that binds authorization attempts to this browser, or None."""
        return _read(headers, self._browser_name)

    def require_once(self, headers: Headers) -> None:
        """Raise `CookieSentTwice` if the request has two cookies with the name of a gateway cookie.

        The first occurrence is logged.
        """
        sent = b"; ".join(value for key, value in headers if key == b"cookie")
        name = next((name.decode() for name in self._names if is_sent_twice(sent, name)), None)
        if name is None:
            return
        if not self._twice_logged:
            self._twice_logged = True
            _log.warning("duplicate cookie received", name=name, remedy="choose another sessions.cookie.name")
        raise CookieSentTwice(name)

    def without_gateway_cookies(self, value: bytes) -> bytes:
        """Return the Cookie value for the upstream; empty if no cookie is left."""
        return strip_cookies(value, self._names) or b""

    def new_browser(self) -> str:
        """Return a new value for the browser cookie."""
        return new_token()

    def set_browser(self, value: str) -> tuple[bytes, bytes]:
        """Return the header that sets the browser cookie."""
        return b"set-cookie", set_browser_cookie(self._cookie, value, self._attempt_lifetime)

    def set_session(self, session: Session, value: str) -> tuple[bytes, bytes]:
        """Return the header that sets the session cookie, for the rest of the session's lifetime."""
        left = session.created_at + self._cookie.lifetime - self._clock()
        return b"set-cookie", set_cookie(self._cookie, value, left)

    def delete_session(self) -> tuple[bytes, bytes]:
        """Return the header that deletes the session cookie."""
        return b"set-cookie", delete_cookie(self._cookie)


def _read(headers: Headers, name: bytes) -> str | None:
    cookies = [value for key, value in headers if key == b"cookie"]
    if not cookies:
        return None
    # HTTP/2 may split the field (RFC 9113 section 8.2.3). Join the parts, so that a second copy is detected.
    return read_cookie(cookies[0] if len(cookies) == 1 else b"; ".join(cookies), name)
