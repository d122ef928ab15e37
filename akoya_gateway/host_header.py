"""Validates the request header `Host` (RFC 9110 section 7.2, RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?]*)")
_PORT = re.compile(rb":\d*$")
_HOST = re.compile(rb"[A-Za-z0-9._~\-%!$&'()*+;=]*(?::\d{0,5})?|\[[0-9A-Fa-f:.]+\](?::\d{0,5})?")


def is_host(value: bytes) -> bool:
    """Return True for a valid value of Host: a host and an optional port."""
    return _HOST.fullmatch(value) is not None


def has_valid_host(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return False if the app could take another host, or another path, from `Host` than the request's.

    That is so if there are several, or if the value is not a host: frameworks build the URL from it, and with
    `Host: a/admin?` older releases of Starlette return `/admin` as the path of `request.url`. HTTP/1.0 and HTTP/2 need
    no Host.
    """
    hosts = [value for name, value in headers if name == b"host"]
    return len(hosts) < 2 and all(map(is_host, hosts))


def names_another_host(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return True if the request target is a URL and its host is not that of the one `Host`. Ports are ignored.

    A proxy in front may have chosen by the URL (RFC 9112 section 3.2.2), but `Host` is what apps read and what is
    signed. Clients must send the same in both, without user information (section 3.2).
    """
    found = _ABSOLUTE.match(target)
    if found is None:
        return False
    hosts = [_PORT.sub(b"", value).lower() for name, value in headers if name == b"host"]
    return hosts != [_PORT.sub(b"", found[1]).lower()]
