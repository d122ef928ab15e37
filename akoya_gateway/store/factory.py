"""Creates the store that `sessions.store` in gateway.yaml names."""

from __future__ import annotations

import re
import time
from pathlib import Path

from akoya_gateway.clock import Clock
from akoya_gateway.errors import OperatorError
from akoya_gateway.store.base import Store
from akoya_gateway.store.memory import MemoryStore
from akoya_gateway.store.redis.url import parse

_WAYS = ("", "s", "+sentinel", "s+sentinel", "+cluster", "s+cluster")
REDIS_SCHEMES = frozenset(server + way for server in ("redis", "valkey") for way in _WAYS)
"""URL schemes of the Redis store. A trailing `s` after `redis` or `valkey` means TLS."""


def open_store(url: str, clock: Clock = time.time) -> Store:
    """Return the store that `url` names, not opened yet.

    Supports `memory://`, `sqlite:///absolute/path`, `sqlite:relative/path`, `redis://`, `rediss://`,
    `redis+sentinel://` and `redis+cluster://`, and the same forms with `valkey` (see docs/stores.md).

    Raises:
        OperatorError: The scheme is not supported, the rest of the URL is invalid, or the Redis client library is not
            installed.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore(clock)
    if scheme == "sqlite":
        # SQLite takes 1.2 MB of memory, which a process with another store does not need.
        from akoya_gateway.store.sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore(_sqlite_path(url), clock)
    if scheme in REDIS_SCHEMES:
        return _redis(url, clock)
    raise OperatorError(
        f"sessions.store: unknown scheme {_printable_scheme(url)!r}; "
        "use memory://, sqlite:///path, redis://, rediss://, redis+sentinel:// or redis+cluster://"
    )


def open_store_for_command(url: str, *, create: bool = False) -> Store:
    """Return the store of a gateway for a command in another process, not opened yet.

    Args:
        url: As for `open_store`.
        create: Whether an SQLite database may be created. Otherwise a mistyped path would look like an empty store.

    Raises:
        OperatorError: As for `open_store`; or the store is in the memory of the gateway, or does not exist.
    """
    store = open_store(url)
    if isinstance(store, MemoryStore):
        raise OperatorError(
            "sessions.store: memory:// is the memory of the gateway's process, which a command cannot reach; "
            "use sqlite: or redis:"
        )
    if url.startswith("sqlite:") and not create and _is_missing(Path(_sqlite_path(url))):
        raise OperatorError(
            f"sessions.store: there is no database {_sqlite_path(url)}; the gateway creates it when it starts. "
            "Is this its configuration, and its machine?"
        )
    return store


def _is_missing(path: Path) -> bool:
    """Return True if the file does not exist.

    False if that is unknown, for example because its folder belongs to another user: opening the file reports it.
    """
    try:
        path.stat()
    except OSError as fault:
        return isinstance(fault, FileNotFoundError | NotADirectoryError)
    return False


def describe(url: str) -> str:
    """Return the URL for messages and logs, without user, password and query.

    A Redis URL is assembled from validated parts only. Of a URL that cannot be parsed only the scheme is shown.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return f"sqlite:{_sqlite_path(url)}"
    if scheme == "memory":
        return "memory://"
    try:
        return parse(url).where
    except OperatorError:
        return f"{_printable_scheme(url)}://…"


def _printable_scheme(url: str) -> str:
    """Return the scheme of the URL, or `…` if it has none: a text without a scheme may be a password."""
    found = re.match(r"[a-z][a-z0-9+]{1,20}(?=://)", url)
    return found[0] if found else "…"


def _sqlite_path(url: str) -> str:
    """Return the path of an SQLite URL: `/var/x.db` for `sqlite:///var/x.db`, `x.db` for `sqlite:x.db`.

    Percent-escapes are not decoded.
    """
    path = url.partition(":")[2].removeprefix("//")
    if not path or path == "/":
        raise OperatorError(
            "sessions.store: sqlite needs a file, for example sqlite:///var/lib/akoya-gateway/grants.db"
        )
    return path


def _redis(url: str, clock: Clock) -> Store:
    try:
        from akoya_gateway.store.redis.store import RedisStore  # noqa: PLC0415  # an optional dependency
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "redis":
            raise
        raise OperatorError(
            f"sessions.store: {describe(url)} needs the Redis client: pip install 'redis>=6.2'"
        ) from missing
    return RedisStore.from_url(url, clock)
