"""Reads the gateway's origin, listeners, upstreams, redirects, trusted proxies and identity settings."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TypeVar

from akoya_gateway.client_headers import PASS, ClientHeaders
from akoya_gateway.config.data_apis import read_data_apis
from akoya_gateway.config.diagnostics import dotted, quoted
from akoya_gateway.config.model import (
    Client,
    DataApi,
    Environment,
    Identity,
    IdentitySource,
    Listen,
    Origin,
    Redirects,
    Upstream,
    UpstreamTLS,
    WebSocketBounds,
)
from akoya_gateway.config.reader import Node
from akoya_gateway.config.secrets import existing_file, read_password
from akoya_gateway.config.value_parsers import is_loopback, parse_listen, parse_url, stays_on_this_machine
from akoya_gateway.secret import Secret
from akoya_gateway.trusted_proxies import UNIX, TrustedPeer

T = TypeVar("T")

_MIN_BEARER_BYTES = 32

_RESERVED_HEADERS = frozenset({"cookie", "host", "content-length", "transfer-encoding", "connection", "te", "upgrade"})
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()+,;=:@%/]*")


def read_public_url(top: Node) -> Origin | None:
    """Read `public_url`, which must be an origin without path and query."""
    found = top.url("public_url")
    node = top.get("public_url")
    if found is None or node is None:
        return None
    if found.path not in ("", "/") or "?" in found.text:
        node.error("an origin has no path and no query", f"write {found.origin}")
        return None
    return found.origin


def read_root_path(top: Node) -> str:
    """Read the path at which the middleware is mounted. It is empty at the root."""
    node = top.get("root_path")
    if node is None or not node.value:
        return ""
    if _has_apps(top):
        node.error("only middleware is mounted in another app, but an upstream is configured", "remove root_path")
    path: str = node.value
    return path


def warn_of_callbacks_outside(clients_node: Node, clients: Mapping[str, Client], root_path: str) -> None:
    """Warn about redirect URIs outside of `root_path`: they reach the gateway only if the app around it routes them."""
    for name, client in clients.items():
        if root_path and not client.callback_path.startswith(f"{root_path}/"):
            node = clients_node.section(name)
            node.warn(f"the app around the gateway passes it nothing outside of {root_path}/", key="redirect_uri")


def parse_or_report(node: Node, read: Callable[[str], T]) -> T | None:
    """Return the result of `read` for the node's text. Report its ValueError as an error and return None."""
    try:
        return read(node.value)
    except ValueError as error:
        node.error(str(error))
        return None


def read_listeners(top: Node) -> tuple[Listen | None, Listen | None]:
    """Return the public and the admin listener. Each is None if it is invalid; the admin listener also if it is off."""
    public = _listen(top)
    if "admin" in top.value and top.value["admin"] is None:
        return public, None
    section = top.section("admin")
    admin = _listen(section)
    if public and admin and admin == public and (public.path or public.port):
        section.error("admin must not listen where the public does", "choose another port", key="listen")
    return public, admin


def read_token_bearer(top: Node, admin: Listen | None) -> Secret | None:
    """Read the bearer for the token route of the admin listener.

    It must be too long to be guessed, and must not cross a network in plain text.
    """
    if top.get("admin") is None:
        return None
    section = top.section("admin")
    node = section.get("token_bearer")
    bearer = read_password(node)
    is_shown = admin is not None and not stays_on_this_machine(admin) and not section.plain("insecure_http")
    if node is not None and is_shown:
        remedy = "listen on loopback, or set admin.insecure_http: true if that network is yours alone"
        node.error("plain http beyond loopback would show the bearer and the tokens to the network", remedy)
    if node is not None and bearer is not None and len(bearer) < _MIN_BEARER_BYTES:
        remedy = "make one with `openssl rand -base64 33`"
        node.error(f"the bearer is shorter than {_MIN_BEARER_BYTES} characters", remedy)
        return None
    return bearer


def _listen(node: Node) -> Listen | None:
    below = node.get("listen")
    return parse_listen(node.plain("listen")) if below is None else parse_or_report(below, parse_listen)


@dataclass(frozen=True, slots=True)
class UpstreamSet:
    """The apps behind the gateway, to which access rules refer.

    `names` is the node of `upstreams`. `by_name_only` is True if every access rule must name an upstream, because there
    is no default. `data_apis` are the entries that are Akoya's data API instead of an app.
    """

    default: Upstream | None
    others: Mapping[str, Upstream]
    data_apis: Mapping[str, DataApi]
    names: Node
    by_name_only: bool


def read_upstreams(top: Node, environments: Mapping[str, Environment]) -> UpstreamSet:
    """Read the upstreams. Those with errors are included, so that the rules that name them can be checked.

    A data API is included only if its environment is known.
    """
    node = top.get("upstream")
    names = top.section("upstreams")
    apps = {name: below for name, below in names.entries() if "data_api" not in below.value}
    return UpstreamSet(
        None if node is None else _upstream(node, ""),
        {name: _upstream(below, name) for name, below in apps.items()},
        read_data_apis(names, top.section("environments"), environments),
        names,
        by_name_only=top.is_missing("upstream") and _has_apps(top),
    )


def _has_apps(top: Node) -> bool:
    """Return True if the gateway forwards requests to apps: an upstream that is not a data API is configured."""
    apps = [below for _, below in top.section("upstreams").entries() if "data_api" not in below.value]
    return not top.is_missing("upstream") or bool(apps)


def _upstream(node: Node, name: str) -> Upstream:
    urls = node.get("url")
    insecure = bool(node.plain("insecure_http"))
    origins = [found for item in urls.items() if (found := _origin(item, insecure, node))] if urls else []
    timeout = node.section("timeout")
    tls = node.section("tls")
    certificate, key = existing_file(tls.get("certificate")), existing_file(tls.get("key"))
    for one, other in (("certificate", "key"), ("key", "certificate")):
        if not tls.is_missing(one) and tls.is_missing(other):
            tls.error(f"a {one} without its {other}", f"add {other}", key=one)
    ca = existing_file(tls.get("ca"))
    if tls.reader.reads(tls.path):
        _validate_tls(tls, ca, certificate, key)
    header_bytes = node.bytes("max_header_bytes")
    if header_bytes < 4096:
        node.error("must be 4KiB or more: the signed headers alone can take that", key="max_header_bytes")
    return Upstream(
        origins=tuple(origins),
        connect_timeout=timeout.seconds("connect"),
        read_timeout=timeout.seconds("read"),
        pool=node.plain("pool"),
        max_header_bytes=header_bytes,
        tls=UpstreamTLS(ca, certificate, key, tls.plain("server_name")),
        websocket=_websocket(node.section("websocket")),
        keep_alive=node.plain("keep_alive"),
        name=name,
    )


def _validate_tls(tls: Node, ca: FilePath | None, certificate: FilePath | None, key: FilePath | None) -> None:
    """Load the files as the upstream connection will, so that `check` reports the errors that `run` would have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # ssl.SSLError is a subclass.
            reason = "no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            tls.error(f"{quoted(str(ca))} cannot be used: {reason}", key="ca")
    if certificate is not None and key is not None:
        try:
            # Without a password, OpenSSL would prompt for one at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            reason = "not PEM, not a pair, or encrypted" if isinstance(error, ssl.SSLError) else error.strerror
            tls.error(f"certificate and key cannot be used: {reason}", key="certificate")


def _websocket(node: Node) -> WebSocketBounds:
    max_message = node.bytes("max_message")
    if not max_message:
        node.error("must be more than 0", key="max_message")
    return WebSocketBounds(max_message, node.seconds("idle_timeout"))


def _origin(node: Node, insecure: bool, upstream: Node) -> Origin | None:
    text: str = node.value
    if text.startswith("unix:"):
        found = parse_or_report(node, parse_listen)
        return Origin("http", "localhost", 80, found.path) if found else None
    parsed = parse_or_report(node, parse_url)
    if parsed is None:
        return None
    if not parsed.secure and not insecure:
        remedy = f"use https, or set {dotted(upstream.path)}.insecure_http: true if that network is yours alone"
        node.error("plain http to an address that is not loopback would show tokens to the network", remedy)
        return None
    return parsed.origin


def read_redirects(top: Node, prefix: str, public: Origin | None, root_path: str) -> Redirects:
    """Read where browsers may be redirected. `prefix` and `root_path` are used for the defaults."""
    node = top.section("redirects")
    after_connect: str = node.plain("after_connect")
    if node.is_missing("after_connect"):
        after_connect = root_path + after_connect
    after_error: str = node.plain("after_error") or f"{prefix}/"
    for key in ("after_connect", "after_error"):
        if below := node.get(key):
            _target(below, wildcard=False, public=public)
    allow = node.get("allow")
    if allow is None:
        return Redirects(after_connect, after_error, (re.split(r"[?#]", after_connect)[0],))
    listed = [item.value for item in allow.items() if _target(item, wildcard=True, public=public)]
    return Redirects(after_connect, after_error, tuple(listed))


def _target(node: Node, *, wildcard: bool, public: Origin | None) -> bool:
    """Return True if the value is a valid path or URL. With `wildcard` it may have one `*` at its end."""
    text: str = node.value
    plain = text[:-1] if wildcard and text.endswith("*") else text
    if "*" in plain:
        where = "at the end of the path" if wildcard else "in redirects.allow"
        node.error(f"a `*` is only allowed {where}", "such as /accounts/*")
        return False
    if plain.startswith("/"):
        path = plain
    else:
        parsed = parse_or_report(node, lambda _: parse_url(plain))
        if parsed is None:
            return False
        if text != plain and not parsed.path:
            node.error("a `*` right after the host would allow other hosts", f"write {plain}/*")
            return False
        if not parsed.secure:
            node.error("plain http is accepted for loopback addresses only", "use https")
            return False
        if not parsed.text.startswith(str(parsed.origin)):
            node.error("an origin is written in lower case and without its default port", f"write {parsed.origin}")
            return False
        path = parsed.path or "/"
    path, _, _ = path.partition("?")
    return _plain_path(node, path, is_pattern=wildcard)


def _plain_path(node: Node, path: str, *, is_pattern: bool) -> bool:
    segments = path.split("/")[1:]
    if is_pattern and "?" in node.value:
        node.error("patterns match the path only, without query", "remove what follows ?")
    elif not _PATH.fullmatch(path):
        node.error("a character that must be escaped in a path", "letters, digits and -._~!$&'()+,;=:@%/")
    elif "" in segments[:-1] or "." in segments or ".." in segments:
        node.error("empty and dot segments are read differently by browsers and servers", "write the plain path")
    else:
        return True
    return False


def read_trusted_proxies(top: Node) -> tuple[TrustedPeer, ...]:
    """Read the trusted proxies. A network that covers all addresses is rejected without `trust_all_proxies`."""
    node = top.get("trusted_proxies")
    found: list[TrustedPeer] = []
    for item in node.items() if node else ():
        if item.value == UNIX:
            found.append(UNIX)
            continue
        try:
            network = ipaddress.ip_network(item.value, strict=False)
        except ValueError:
            item.error(f"{quoted(item.value)} is not an address or network", "such as 10.0.0.0/8, ::1 or unix")
            continue
        if "/" in item.value and str(network.network_address) != str(ipaddress.ip_interface(item.value).ip):
            item.error("the address has bits beyond the length of its network", f"did you mean {network}?")
            continue
        network = _unmapped(network)
        if network.prefixlen == 0 and not top.plain("trust_all_proxies"):
            remedy = (
                "list your proxies; trust_all_proxies: true allows it if nothing but your proxies can reach the gateway"
            )
            item.error("this trusts every client: any of them could then claim any address and user", remedy)
        else:
            found.append(network)
    return tuple(found)


def _unmapped(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the IPv4 network of IPv4-mapped addresses, as `parse_address` does for peers. Others are unchanged."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


def read_identity(top: Node, proxies: Iterable[object]) -> Identity:
    """Read how the owner of grants is identified. An identity header requires `trusted_proxies`."""
    node = top.section("identity")
    chosen = [key for key in ("from", "header", "jwt") if node.value.get(key) is not None]
    if len(chosen) > 1:
        node.error(f"{' and '.join(chosen)} cannot be used together", "keep one of from, header and jwt", key=chosen[1])
    header = node.get("header")
    if header is not None:
        _check_header(header)
        if not list(proxies) and not top.value.get("trusted_proxies"):
            header.error("a header is only trusted from trusted_proxies, and there are none", "list them there")
        elif ClientHeaders().handling(header.value.encode()) is PASS:
            header.warn(
                f"no file of deploy/ removes a client's own {header.value}, and your proxy may pass it on",
                "use X-Forwarded-User, or remove it in every location, also on the gateway's own routes",
            )
        return Identity(IdentitySource.HEADER, header.value.lower())
    jwt = node.get("jwt")
    if jwt is None:
        return Identity()
    if below := jwt.get("header"):
        _check_header(below)
    jwks = jwt.url("jwks_uri")
    return Identity(
        IdentitySource.JWT,
        header=jwt.plain("header").lower(),
        jwks_uri=jwks.text if jwks else None,
        issuer=jwt.plain("issuer"),
        audience=jwt.plain("audience"),
        claim=jwt.plain("claim"),
    )


def _check_header(node: Node) -> None:
    name = node.value.lower()
    folded = name.replace("_", "-")
    if folded in _RESERVED_HEADERS or folded.startswith(("akoya-", "signature")):
        node.error(f"the header {node.value} has a meaning of its own", "choose another")
    elif "_" in name:
        node.error("a header with `_` can be confused with one with `-`", "use `-`")


def warn_if_plain_http(top: Node, public: Origin | None) -> None:
    """Warn if `public_url` is plain http, which is accepted only on a loopback address."""
    if public is not None and public.scheme == "http" and is_loopback(public.host):
        top.warn("http on loopback: for development only, cookies are not Secure", key="public_url")


def warn_if_tls_ends_nowhere(top: Node, public: Origin | None) -> None:
    """Warn if browsers use https and no proxy that could end TLS in front of the sidecar is trusted.

    All requests then seem to come from the proxy: its address is in the access log, and limits such as
    `connects_per_minute` apply to all users together. Behind middleware, the app's server is responsible.
    """
    sidecar = _has_apps(top)
    if public is not None and public.scheme == "https" and sidecar and not top.value.get("trusted_proxies"):
        remedy = "list the proxy that terminates TLS in trusted_proxies"
        message = "https, but the gateway does not end TLS, and no proxy in front of it is trusted"
        top.warn(message, remedy, key="public_url")
