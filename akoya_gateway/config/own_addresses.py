"""Finds upstreams that are the gateway itself: requests to them would be forwarded to the gateway again and again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from akoya_gateway.config.model import Listen, Origin
from akoya_gateway.config.reader import Node
from akoya_gateway.config.value_parsers import is_loopback, parse_listen, parse_url

_ANY_IPV4, _ANY = str(IPv4Address(0)), str(IPv6Address(0))
"""The addresses of listeners on all IPv4 addresses, and on all addresses: Linux includes IPv4 in `::`."""
_LOCALHOST = ("localhost", "127.0.0.1", "::1")


def check_own_addresses(top: Node, listen: Listen | None, admin: Listen | None, public: Origin | None) -> None:
    """Report upstreams whose address is one of the gateway's listeners or `public_url`.

    If `listen` has its default the report is a warning, because the gateway does not listen there under another ASGI
    server.
    """
    for upstream in (top.section("upstream"), *(below for _, below in top.section("upstreams").entries())):
        urls = upstream.get("url")
        for item in urls.items() if urls else ():
            target = _target(item.value)
            if listen is not None and _reaches(target, listen):
                message = "this is the gateway's own address (listen): requests would be forwarded to the gateway again"
                report = item.error if top.is_present("listen") else item.warn
                report(message, "name the address of the app, or listen on another port")
            elif admin is not None and _reaches(target, admin):
                message = "this is the gateway's own address (admin.listen): clients would reach its metrics and tokens"
                report = item.error if top.section("admin").is_present("listen") else item.warn
                report(message, "name the address of the app, or choose another port for admin.listen")
            elif target == public:
                message = "this is public_url: requests would be forwarded to the gateway again if it leads there"
                item.warn(message, "name the address of the app")


def _target(text: str) -> Origin | Listen | None:
    """Parse the URL of an upstream, or return None for an invalid one, which is reported elsewhere."""
    try:
        return parse_listen(text) if text.startswith("unix:") else parse_url(text).origin
    except ValueError:
        return None


def _reaches(target: Origin | Listen | None, listen: Listen) -> bool:
    """Return True if connections to the target arrive at the listener."""
    if target is None or target.path != listen.path:
        return False
    if listen.path is not None:
        return True
    if target.port != listen.port:
        return False
    if listen.host in (_ANY_IPV4, _ANY):
        return is_loopback(target.host) and (listen.host == _ANY or ":" not in target.host)
    both = (target.host, listen.host)
    return target.host == listen.host or ("localhost" in both and all(host in _LOCALHOST for host in both))
