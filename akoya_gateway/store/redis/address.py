"""What a Redis URL says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

from akoya_gateway.errors import OperatorError
from akoya_gateway.secret import Secret


class Topology(Enum):
    ONE = "one server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """`timeout`: seconds for one round trip. `wait`: replicas that must have a write before it counts."""

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
    """How messages name it: no password in it."""


_OPTIONS = frozenset(
    {"timeout", "wait", "prefix", "ca", "certificate", "key", "sentinel_username", "sentinel_password"}
)


def parse(url: str) -> Address:
    """Judge a URL. Raises `OperatorError`, whose text never holds a password."""
    parts = urlsplit(url)
    scheme, _, way = parts.scheme.partition("+")
    topology = {"": Topology.ONE, "sentinel": Topology.SENTINEL, "cluster": Topology.CLUSTER}[way]
    credentials, _, netloc = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    hosts = tuple(_host(host, 26379 if topology is Topology.SENTINEL else 6379) for host in netloc.split(","))
    where = f"{parts.scheme}://{netloc}{parts.path}"
    if topology is Topology.ONE and len(hosts) > 1:
        raise OperatorError(f"sessions.store: {where}: several servers need redis+sentinel:// or redis+cluster://")
    service, database = _path(parts.path, topology, where)
    options = _options(parts.query, where)
    if topology is Topology.CLUSTER and options.get("wait", "0") != "0":
        raise OperatorError(
            f"sessions.store: {where}: `wait` is for one server and sentinel; "
            "in a cluster set min-replicas-to-write at the servers"
        )
    return Address(
        topology=topology,
        hosts=hosts,
        tls=scheme.endswith("s") and scheme != "redis",
        service=service,
        database=database,
        username=unquote(username) or None,
        password=Secret(unquote(password)) if password else None,
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


def _host(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "127.0.0.1", parts.port or default
    except ValueError:
        raise OperatorError(f"sessions.store: {text!r} is not host:port") from None


def _path(path: str, topology: Topology, where: str) -> tuple[str, int]:
    """`/2` is a database; `/service/2` with sentinel."""
    words = [unquote(word) for word in path.split("/") if word]
    service = ""
    if topology is Topology.SENTINEL:
        if not words:
            raise OperatorError(f"sessions.store: {where}: name the service that the sentinels watch: {where}/mymaster")
        service = words.pop(0)
    if not words:
        return service, 0
    if len(words) > 1 or not words[0].isdecimal() or len(words[0]) > 4:
        raise OperatorError(f"sessions.store: {where}: the path must end in the number of a database")
    if topology is Topology.CLUSTER and int(words[0]) != 0:
        raise OperatorError(f"sessions.store: {where}: a cluster has database 0 only")
    return service, int(words[0])


def _options(query: str, where: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise OperatorError(f"sessions.store: {where}: no option {name!r}; there are {', '.join(sorted(_OPTIONS))}")
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
