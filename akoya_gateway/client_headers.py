"""Decides by name which request headers of a client reach the app.

Servers and frameworks let request headers override the path, mount point, method, user, client address or scheme. A
server that turns headers into variables (CGI, WSGI, PHP) does not distinguish `-` from `_` and other punctuation. With
such a header the app would serve a different request from the one that was authorized and signed: gunicorn trusts
`SCRIPT_NAME`, daphne trusts `Daphne-Root-Path`. `client_header_names` has the lists. Every entry point and the header
writer use this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_header_names import (
    CONTROL_PREFIXES,
    FROM_PROXIES,
    GENERAL_PREFIXES,
    IN_FAMILIES,
    MOVES_PREFIXES,
    MOVES_SUFFIXES,
    MOVES_THE_REQUEST,
    PROTECTED,
    PROXY_PREFIXES,
    PROXY_SUFFIXES,
    SENT_BY_NGINX,
    TRACE_PREFIXES,
    TRACES,
    USER_PREFIXES,
)
from akoya_gateway.log import LoggedValues, logger

log = logger("akoya_gateway.client_headers")

LOGGED_NAMES = 100
"""Number of dropped names that are logged under one configuration. Further names are dropped without a log entry."""
UNDERSCORE, LISTED = "allow_underscore_headers", "allow_client_headers"
"""The configuration keys that allow single names."""
MAX_CACHED_NAMES, MAX_CACHED_NAME_BYTES = 4096, 256

_GATEWAY_PREFIXES = (b"akoya", b"signature")
_DESCRIBING_PREFIXES = GENERAL_PREFIXES + USER_PREFIXES
_CLOSED_PREFIXES = MOVES_PREFIXES + USER_PREFIXES + CONTROL_PREFIXES
"""Prefixes of names that cannot be allowed, because servers interpret every header that has one."""
_LISTED_NAMES = MOVES_THE_REQUEST | FROM_PROXIES | IN_FAMILIES | SENT_BY_NGINX
_FOLDED = bytes(byte if chr(byte).isalnum() and byte < 0x80 else 0x2D for byte in range(256))


class Handling(IntEnum):
    """What the gateway does with a header. `FROM_PROXIES`: pass it on only from a trusted proxy."""

    PASS = 0
    FROM_PROXIES = 1
    DROP = 2


PASS, DROP = Handling.PASS, Handling.DROP


def fold(name: bytes) -> bytes:
    """Return the name as a server that turns headers into variables may see it.

    The result is in lower case, and everything but ASCII letters and digits is replaced with `-`.
    """
    return name.lower().translate(_FOLDED)


def is_known(name: bytes) -> bool:
    """Return True if the name, in any spelling, has a meaning for the gateway or is listed in this module."""
    folded = fold(name)
    return folded.startswith(_GATEWAY_PREFIXES) or folded in PROTECTED or _family(folded) is not PASS


def is_alias(name: bytes) -> bool:
    """Return True if the name is an unusual spelling of a known name, which no legitimate client sends."""
    return fold(name) != name.lower() and is_known(name)


def setting_for(name: bytes) -> str | None:
    """Return the configuration key that lets a header of this name reach the app, or None if it cannot be allowed.

    The name is one that the gateway drops. It can be allowed if it is dropped for its `_`, because of a general prefix
    or suffix, or because it names a trace, but not if servers are known to interpret the header.
    """
    lower = name.lower()
    folded = fold(lower)
    if folded != lower:
        return UNDERSCORE if b"_" in lower and not is_known(lower) else None
    if lower in TRACES or lower.startswith(TRACE_PREFIXES):
        return LISTED
    closed = lower in _LISTED_NAMES or lower.startswith(_CLOSED_PREFIXES) or lower.startswith(_GATEWAY_PREFIXES)
    return None if closed or _family(lower) is PASS else LISTED


def is_unlisted(name: bytes) -> bool:
    """Return True if the name must not reach the app, and the configuration files of nginx do not remove it.

    nginx has no patterns, so its files contain only the listed names, and those names of families that are in use.
    Returns False for names of hosting services, service meshes and tracing systems, which may add new names to requests
    at any time.
    """
    folded, lower = fold(name), name.lower()
    if lower in MOVES_THE_REQUEST or lower in FROM_PROXIES or lower in SENT_BY_NGINX:
        return False
    if folded != lower:
        return is_known(name)
    is_describing = folded.startswith(_DESCRIBING_PREFIXES) or folded.endswith(PROXY_SUFFIXES)
    return is_describing or _family(folded) is DROP


def is_ours_to_app(name: bytes) -> bool:
    """Return True if the name, in any spelling, is one that the gateway sends to apps (`Akoya-*`)."""
    folded = fold(name)
    return folded[:6] == b"akoya-" or folded == b"akoya"


def _family(folded: bytes) -> Handling:
    if folded in MOVES_THE_REQUEST or folded.startswith(MOVES_PREFIXES):
        return DROP
    if folded in FROM_PROXIES or folded.startswith(PROXY_PREFIXES):
        return Handling.FROM_PROXIES
    if folded.endswith(MOVES_SUFFIXES):
        return DROP
    return Handling.FROM_PROXIES if folded.endswith(PROXY_SUFFIXES) else PASS


class ClientHeaders:
    """Decides about the headers under one configuration. Results are cached by name.

    Args:
        allowed: lower-case names that pass although they would be dropped (`allow_underscore_headers`,
            `allow_client_headers`).
        identity: the header that identifies the app's user, or None. It passes here because it is checked separately.
    """

    __slots__ = ("_handling", "_logged", "_passed", "allowed")

    def __init__(self, allowed: Iterable[str] = (), identity: str | None = None) -> None:
        self.allowed = frozenset(name.encode() for name in allowed)
        self._passed = self.allowed if identity is None else self.allowed | {identity.encode()}
        self._logged = LoggedValues(LOGGED_NAMES)
        self._handling: BoundedCache[bytes, Handling] = BoundedCache(MAX_CACHED_NAMES, MAX_CACHED_NAME_BYTES)

    def handling(self, name: bytes) -> Handling:
        """Return what to do with a header of this name. Case is ignored."""
        cached = self._handling.get(name)
        return self._handling.store(name, self._decide(name), len(name)) if cached is None else cached

    def passes(self, name: bytes, *, from_proxy: bool) -> bool:
        """Return True if a header of this name reaches the app.

        Args:
            name: the header's name, in any case.
            from_proxy: True if the peer is one of `trusted_proxies`.
        """
        handling = self.handling(name)
        return handling is PASS or (from_proxy and handling is not DROP)

    def passed(self, headers: Iterable[tuple[bytes, bytes]], *, from_proxy: bool) -> list[tuple[bytes, bytes]]:
        """Return a new list of the headers that reach the app. The others are logged."""
        kept = []
        for header in headers:
            if self.passes(header[0], from_proxy=from_proxy):
                kept.append(header)
            else:
                self.log_dropped(header[0])
        return kept

    def log_dropped(self, name: bytes) -> None:
        """Log that a header is dropped because of its name, once for each name and for at most `LOGGED_NAMES` names.

        The entry names the setting that lets the header reach the app. Names that pass are ignored: a header may also
        be dropped for another reason, such as a hop-by-hop header.
        """
        name = name.lower()
        if self.handling(name) is PASS or not self._logged.add(name):
            return
        setting = setting_for(name)
        if setting is None and self.handling(name) is Handling.FROM_PROXIES:
            setting = "trusted_proxies"
        # Clients on the internet send X-Forwarded-For and the like without need.
        write = log.warning if setting in (UNDERSCORE, LISTED) else log.info
        write("client header dropped", header=name[:64].decode("latin-1"), setting=setting)

    def _decide(self, name: bytes) -> Handling:
        lower = name.lower()
        if lower in self._passed:
            return PASS
        folded = lower.translate(_FOLDED)
        if b"_" in lower:
            return DROP
        family = _family(folded)
        if folded == lower or lower[:1] == b"$":
            return family
        return DROP if family is not PASS or folded in PROTECTED else PASS
