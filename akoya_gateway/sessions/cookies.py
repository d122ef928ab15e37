"""Our cookies on the wire (RFC 6265): reading, setting and hiding them. Pure, and linear in what it is given."""

from __future__ import annotations

from collections.abc import Iterable

from akoya_gateway.config.model import Cookie, SameSite
from akoya_gateway.sessions.random_tokens import is_token

_BLANK = b" \t"
_SEMICOLON = 0x3B


def read_cookie(header: bytes, name: bytes) -> str | None:
    """The value of our cookie in a Cookie header, or None: absent, not of the form we give out, or there twice.

    Two cookies of our name cannot both be ours, and which of them a browser sends first is up to whoever set the
    other (RFC 6265 section 5.4): then there is none. The search ends at the second; junk around is skipped, not split.
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
    """Where the next pair begins with `wanted`, -1 if none does."""
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
    """The Cookie header without the cookies called `names`, the others byte for byte as they were; None: none left."""
    hidden = tuple(names)
    if not any(name in header for name in hidden):
        return header
    cached = [pair for pair in header.split(b";") if pair.partition(b"=")[0].strip(_BLANK) not in hidden]
    return b";".join(cached).strip(_BLANK) or None


def set_cookie(cookie: Cookie, value: str, max_age: float) -> bytes:
    """A Set-Cookie value for the session; `max_age` in seconds (what is left of its absolute life)."""
    return _set(cookie.name, value, max_age, cookie.same_site, secure=cookie.secure)


def delete_cookie(cookie: Cookie) -> bytes:
    """Takes the session cookie away: same name and attributes, or a browser would keep it (compare CVE-2025-55162)."""
    return _set(cookie.name, "", 0, cookie.same_site, secure=cookie.secure)


def browser_cookie_name(cookie: Cookie) -> str:
    """The cookie that binds authorization attempts to the browser that began them."""
    return f"{cookie.name}-browser"


def set_browser_cookie(cookie: Cookie, value: str, max_age: float) -> bytes:
    """Always SameSite=Lax: the callback is a navigation that Akoya's site starts, where Strict cookies stay behind."""
    return _set(browser_cookie_name(cookie), value, max_age, SameSite.LAX, secure=cookie.secure)


def delete_browser_cookie(cookie: Cookie) -> bytes:
    return _set(browser_cookie_name(cookie), "", 0, SameSite.LAX, secure=cookie.secure)


def gateway_cookie_names(cookie: Cookie) -> tuple[bytes, ...]:
    """For `strip_cookies`: what the upstream does not get to see."""
    return cookie.name.encode(), browser_cookie_name(cookie).encode()


def _set(name: str, value: str, max_age: float, same_site: SameSite, *, secure: bool) -> bytes:
    # No Domain, Path=/: what the __Host- prefix demands and a plain name should have too.
    written = f"{name}={value}; Path=/; Max-Age={max(int(max_age), 0)}; HttpOnly; SameSite={same_site.capitalize()}"
    return (written + "; Secure" if secure else written).encode("ascii")
