"""Parsers for durations, sizes, URLs and addresses in gateway.yaml.

They are pure functions. The text of a ValueError is the message for the operator.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from akoya_gateway.config.model import Bytes, Listen, Origin, Seconds

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+)(B|kB|KiB|MB|MiB|GB|GiB)?")
_BYTES = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_duration(text: str) -> Seconds:
    """Parse a duration such as `500ms`, `5s`, `15m`, `12h` or `30d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("not a duration")
    return Seconds(float(match[1]) * _SECONDS[match[2]])


def parse_size(value: int | str) -> Bytes:
    """Parse a size: a number of bytes, or a text such as `32KiB`."""
    if isinstance(value, int):
        return Bytes(value)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError("not a size")
    return Bytes(int(match[1]) * _BYTES[match[2] or "B"])


def is_loopback(host: str) -> bool:
    """Return True for `localhost`, names below it (RFC 6761 section 6.3), 127.0.0.0/8 and ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def stays_on_this_machine(listen: Listen) -> bool:
    """Return True for a Unix socket or a loopback address."""
    return listen.path is not None or is_loopback(listen.host)


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an absolute http(s) URL. `text` is the URL as written."""

    text: str
    origin: Origin
    path: str
    query: str

    @property
    def secure(self) -> bool:
        """True for https, and for loopback addresses, whose traffic does not leave the machine."""
        return self.origin.scheme == "https" or is_loopback(self.origin.host)


def parse_url(text: str) -> Url:
    """Parse a URL strictly.

    Raises:
        ValueError: the URL has user information, a fragment, a backslash, a space, a non-ASCII character, an invalid
            host or an invalid port.
    """
    if not text.isascii():
        raise ValueError("a URL must be ASCII; write host names in punycode and escape the rest")
    if any(character in text for character in '\\ <>"{}|^`#') or not text.isprintable():
        raise ValueError("a character that is not allowed in a URL")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("the host or port of the URL cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the URL must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("no user name or password is allowed in this URL")
    if parts.netloc.endswith(":") or port == 0:
        raise ValueError("the port of the URL cannot be read")
    origin = Origin(parts.scheme, _host(parts.hostname or ""), port or _DEFAULT_PORTS[parts.scheme])
    return Url(text, origin, parts.path, parts.query)


def _host(host: str) -> str:
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit() or labels[-1].startswith("0x"):
        return _address(host)
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host of the URL cannot be read")
    return host


def _address(host: str) -> str:
    """Return an IP address in its usual form. Numbers such as 127.1 and 0x7f000001 are refused."""
    try:
        return str(ipaddress.IPv6Address(host) if ":" in host else ipaddress.IPv4Address(host))
    except ValueError:
        raise ValueError(f"{host} is not an IP address; write one like 127.0.0.1 or [::1]") from None


def parse_listen(text: str) -> Listen:
    """Parse `host:port`, `[IPv6]:port` or `unix:/path`. Port 0 means any free port."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if len(path.encode()) > 107:
            raise ValueError("the path of a unix socket has at most 107 bytes")
        return Listen("", 0, path)
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError("a port is 0 to 65535")
    if host.startswith("["):
        return Listen(_address(host[1:-1]), int(port))
    return Listen(_address(host) if host.split(".")[-1].isdigit() else host, int(port))
