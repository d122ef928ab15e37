"""Reads, sets and strips the gateway's cookies (RFC 6265). Without I/O, and in time linear in the input."""

from __future__ import annotations

from collections.abc import Iterable

from akoya_gateway.config.model import Cookie, SameSite
from akoya_gateway.sessions.random_tokens import is_token

_BLANK = b" \t"
_SEMICOLON = 0x3B


def read_cookie(header: bytes, name: bytes) -> str | None:
    """Return the value of a gateway cookie, or None if it is absent, malformed or sent twice.

    At most one of two cookies with the same name can be the gateway's, and the app that set the other one controls
    which of them a browser sends first (RFC 6265 section 5.4). Neither is used then. The search stops at the second
    cookie. Malformed text around the cookie is skipped without splitting the header.
    """
    wanted = name + b"="
    at = _find(header, wanted, 0)
    if at < 0:
        return None
    start = at + len(wanted)
    if _find(header, wanted, start) >= 0:
        return None
    end = header.find(b";", start)
    value = (header[start:end] if end >= 0 else header[start:]).strip(_BLANK).decode("latin-1")
    return value if is_token(value) else None


def is_sent_twice(header: bytes, name: bytes) -> bool:
    """Return True if the Cookie header has more than one cookie of this name, whatever their values are."""
    wanted = name + b"="
    at = _find(header, wanted, 0)
    return at >= 0 and _find(header, wanted, at + len(wanted)) >= 0


def _find(header: bytes, wanted: bytes, start: int) -> int:
    """Return the offset of the next pair that begins with `wanted`, or -1."""
    at = header.find(wanted, start)
    while at >= 0:
        before = at
        while before > 0 and header[before - 1] in _BLANK:
            before -= 1
        if before == 0 or header[before - 1] == _SEMICOLON:
            return at
        at = header.find(wanted, at + len(wanted))
    return -1


def strip_cookies(header: bytes, names: Iterable[bytes]) -> bytes | None:
    """Return the Cookie header without the cookies called `names`, or None if no cookie is left.

    The other cookies keep their exact bytes.
    """
    hidden = tuple(names)
    if not any(name in header for name in hidden):
        return header
    kept = [pair for pair in header.split(b";") if pair.partition(b"=")[0].strip(_BLANK) not in hidden]
    return b";".join(kept).strip(_BLANK) or None


def set_cookie(cookie: Cookie, value: str, max_age: float) -> bytes:
    """Return a Set-Cookie value for the session. `max_age` is the rest of its absolute lifetime in seconds."""
    return _set(cookie.name, value, max_age, cookie.same_site, secure=cookie.secure)


def delete_cookie(cookie: Cookie) -> bytes:
    """Return a Set-Cookie value that deletes the session cookie.

    Name and attributes must be the same as when it was set, or a browser keeps the cookie (compare CVE-2025-55162).
    """
    return _set(cookie.name, "", 0, cookie.same_site, secure=cookie.secure)


def browser_cookie_name(cookie: Cookie) -> str:
    """Return the name of the cookie that binds authorization attempts to the browser that started them."""
    return f"{cookie.name}-browser"


def set_browser_cookie(cookie: Cookie, value: str, max_age: float) -> bytes:
    """Return a Set-Cookie value for the browser cookie, always with SameSite=Lax.

    The callback is a navigation that Akoya's site starts, and browsers do not send Strict cookies with it.
    """
    return _set(browser_cookie_name(cookie), value, max_age, SameSite.LAX, secure=cookie.secure)


def delete_browser_cookie(cookie: Cookie) -> bytes:
    """Return a Set-Cookie value that deletes the browser cookie."""
    return _set(browser_cookie_name(cookie), "", 0, SameSite.LAX, secure=cookie.secure)


def gateway_cookie_names(cookie: Cookie) -> tuple[bytes, ...]:
    """Return the names of the cookies that `strip_cookies` removes before a request goes to the upstream."""
    return cookie.name.encode(), browser_cookie_name(cookie).encode()


def _set(name: str, value: str, max_age: float, same_site: SameSite, *, secure: bool) -> bytes:
    # No Domain and Path=/: required by the __Host- prefix, and advisable for a plain name too.
    written = f"{name}={value}; Path=/; Max-Age={max(int(max_age), 0)}; HttpOnly; SameSite={same_site.capitalize()}"
    return (written + "; Secure" if secure else written).encode("ascii")
