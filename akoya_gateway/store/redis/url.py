"""Parses Redis URLs, and checks the TLS files that they name."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode

from akoya_gateway.errors import OperatorError
from akoya_gateway.secret import Secret


class Topology(Enum):
    """How the Redis servers are deployed."""

    ONE = "one server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisURL:
    """A parsed Redis URL.

    `timeout` is the seconds for one round trip. `wait` is the number of replicas that must have a write before it
    counts.
    """

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    service: str = ""
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    timeout: float = 2.0
    wait: int = 0
    prefix: str = "akoya"
    where: str = field(default="redis", compare=False)
    """The URL as messages show it, without the password."""


_OPTIONS = frozenset(
    {"timeout", "wait", "prefix", "ca", "certificate", "key", "sentinel_username", "sentinel_password"}
)
_FILES = frozenset({"ca", "certificate", "key"})


# One pattern for the whole URL (RFC 3986): an unescaped delimiter in a password cannot move the end of the host, and
# messages are assembled from matched parts only. urlsplit would read `redis://:57#word@cache` as port 57 of this
# machine.
_WORD = r"(?:[^\s:@/?#%\[\]]|%[0-9A-Fa-f]{2})*"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*)(?::[0-9]{1,5})?"
_URL = re.compile(
    r"(?P<scheme>(?:redis|valkey)s?)(?:\+(?P<way>sentinel|cluster))?://"
    rf"(?:(?P<username>{_WORD})(?::(?P<password>{_WORD}(?::{_WORD})*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?P<path>(?:/[A-Za-z0-9._~%-]*)*)"
    r"(?:\?(?P<query>[^\s@#]*))?"
)


def parse(url: str) -> RedisURL:
    """Parse a URL. Raises `OperatorError`, whose text never contains a password."""
    found = _URL.fullmatch(url)
    if found is None:
        raise OperatorError(_unreadable(url))
    scheme, way, path = found["scheme"], found["way"], found["path"]
    topology = {None: Topology.ONE, "sentinel": Topology.SENTINEL, "cluster": Topology.CLUSTER}[way]
    where = f"{scheme}{f'+{way}' if way else ''}://{found['hosts']}{path}"
    default = 26379 if topology is Topology.SENTINEL else 6379
    hosts = tuple(_host(host, default, where) for host in found["hosts"].split(","))
    if topology is Topology.ONE and len(hosts) > 1:
        raise OperatorError(f"sessions.store: {where}: several servers need redis+sentinel:// or redis+cluster://")
    service, database = _path(path, topology, where)
    options = _options(found["query"] or "", where)
    if topology is Topology.CLUSTER and options.get("wait", "0") != "0":
        raise OperatorError(
            f"sessions.store: {where}: `wait` is for one server and sentinel; "
            "in a cluster set min-replicas-to-write at the servers"
        )
    return RedisURL(
        topology=topology,
        hosts=hosts,
        tls=scheme.endswith("s") and scheme != "redis",
        service=service,
        database=database,
        username=unquote(found["username"] or "") or None,
        password=Secret(unquote(found["password"])) if found["password"] else None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=Secret(options["sentinel_password"]) if "sentinel_password" in options else None,
        ca=options.get("ca"),
        certificate=options.get("certificate"),
        key=options.get("key"),
        timeout=_number(options, "timeout", 2.0, where),
        wait=int(_number(options, "wait", 0, where)),
        prefix=_prefix(options.get("prefix", "akoya"), where),
        where=where,
    )


def with_files_below(url: str, folder: Path) -> str:
    """Return the URL with relative paths of TLS files resolved against `folder`."""
    place, _, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    if not any(name in _FILES for name, _ in options):
        return url
    resolved = [(name, str(folder / value) if name in _FILES else value) for name, value in options]
    return f"{place}?{urlencode(resolved, safe='/')}"


def check_files(url: RedisURL) -> None:
    """Load the TLS files as a connection will.

    Raises:
        OperatorError: A file cannot be used. The client library would only fail to connect, without naming the file.
    """
    files = {name: path for name in ("ca", "certificate", "key") if (path := getattr(url, name)) is not None}
    if files and not url.tls:
        raise _invalid_file(url, next(iter(files)), "is for TLS: use a scheme such as rediss://")
    for name, path in files.items():
        if not os.access(path, os.R_OK) or Path(path).is_dir():
            raise _invalid_file(url, name, f"{path} does not exist or cannot be read")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if url.ca is not None:
            context.load_verify_locations(url.ca)
    except OSError:  # ssl.SSLError is a subclass
        raise _invalid_file(url, "ca", f"{url.ca} has no certificate in PEM") from None
    if url.certificate is None:
        if url.key is not None:
            raise _invalid_file(url, "key", "needs `certificate`")
        return
    try:
        # Without a password, OpenSSL would prompt for one at the terminal.
        context.load_cert_chain(url.certificate, url.key, password="")
    except OSError:
        raise _invalid_file(url, "certificate", "and `key` are not PEM, not a pair, or encrypted") from None


def _invalid_file(url: RedisURL, option: str, problem: str) -> OperatorError:
    return OperatorError(f"sessions.store: {url.where}: `{option}` {problem}")


def _unreadable(url: str) -> str:
    """Return an error text that shows only the scheme of the URL: any other part may be a password."""
    scheme = re.match(r"(?:redis|valkey)s?(?:\+(?:sentinel|cluster))?(?=://)", url)
    name = scheme[0] if scheme else "redis"
    return (
        f"sessions.store: {name}://… is not of the form {name}://USER:PASSWORD@host:port/database; "
        "in user and password / ? # @ and % are percent-encoded (%2F %3F %23 %40 %25)"
    )


def _host(text: str, default: int, where: str) -> tuple[str, int]:
    host, colon, port = (text, "", "") if text.endswith("]") else text.rpartition(":")
    if not colon:
        return text.strip("[]"), default
    if not 0 < int(port) < 65536:
        raise OperatorError(f"sessions.store: {where}: a port is 1 to 65535")
    return host.strip("[]"), int(port)


def _path(path: str, topology: Topology, where: str) -> tuple[str, int]:
    """Return the Sentinel service and the database: `/2` is a database, `/service/2` a service and a database."""
    segments = [unquote(word) for word in path.split("/") if word]
    service = ""
    if topology is Topology.SENTINEL:
        if not segments:
            raise OperatorError(f"sessions.store: {where}: name the service that the sentinels watch: {where}/mymaster")
        service = segments.pop(0)
    if not segments:
        return service, 0
    if len(segments) > 1 or not segments[0].isdecimal() or len(segments[0]) > 4:
        raise OperatorError(f"sessions.store: {where}: the path must end in the number of a database")
    if topology is Topology.CLUSTER and int(segments[0]) != 0:
        raise OperatorError(f"sessions.store: {where}: a cluster has database 0 only")
    return service, int(segments[0])


def _options(query: str, where: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            # Show the name only if it looks like an option name: it may be part of a password.
            quoted_name = repr(name) if re.fullmatch(r"[a-z_]{1,24}", name) else "of that name"
            raise OperatorError(
                f"sessions.store: {where}: no option {quoted_name}; there are {', '.join(sorted(_OPTIONS))}"
            )
    return options


def _number(options: dict[str, str], name: str, default: float, where: str) -> float:
    try:
        number = float(options.get(name, default))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 20 or (name == "timeout" and number == 0):
        raise OperatorError(f"sessions.store: {where}: {name} must be a number up to 20")
    return number


def _prefix(prefix: str, where: str) -> str:
    if not prefix or not all(letter.isalnum() or letter in "-_.:" for letter in prefix):
        raise OperatorError(f"sessions.store: {where}: prefix may hold letters, digits and - _ . : only")
    return prefix
