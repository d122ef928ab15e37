"""From `sessions.store` to a store."""

from __future__ import annotations

import re
import time

from akoya_gateway.clock import Clock
from akoya_gateway.errors import OperatorError
from akoya_gateway.store.base import Store
from akoya_gateway.store.memory import MemoryStore
from akoya_gateway.store.redis.url import parse
from akoya_gateway.store.sqlite import SQLiteStore

_WAYS = ("", "s", "+sentinel", "s+sentinel", "+cluster", "s+cluster")
REDIS_SCHEMES = frozenset(server + way for server in ("redis", "valkey") for way in _WAYS)
"""The `s` is TLS."""


def open_store(url: str, clock: Clock = time.time) -> Store:
    """The store that `url` names, not opened yet.

    `memory://`, `sqlite:///absolute/path`, `sqlite:relative/path`, `redis://`, `rediss://`, `redis+sentinel://`,
    `redis+cluster://` (see docs/stores.md). Raises `OperatorError` for any other, and where the Redis client
    library is missing.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore(clock)
    if scheme == "sqlite":
        return SQLiteStore(_sqlite_path(url), clock)
    if scheme in REDIS_SCHEMES:
        return _redis(url, clock)
    raise OperatorError(
        f"sessions.store: no store is called {_shown_scheme(url)!r}; "
        "use memory://, sqlite:///path, redis://, rediss://, redis+sentinel:// or redis+cluster://"
    )


def describe(url: str) -> str:
    """The URL for people and logs, without user, password and query: made of judged parts, or `redis://…`."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return f"sqlite:{_sqlite_path(url)}"
    if scheme == "memory":
        return "memory://"
    try:
        return parse(url).where
    except OperatorError:
        return f"{_shown_scheme(url)}://…"


def _shown_scheme(url: str) -> str:
    """The scheme, if there is one; a text without may be a password as a whole."""
    found = re.match(r"[a-z][a-z0-9+]{1,20}(?=://)", url)
    return found[0] if found else "…"


def _sqlite_path(url: str) -> str:
    """`sqlite:///var/x.db` -> `/var/x.db`; `sqlite:x.db` -> `x.db`. The path is taken as it is, nothing is decoded."""
    path = url.partition(":")[2].removeprefix("//")
    if not path or path == "/":
        raise OperatorError("sessions.store: sqlite needs a file, for example sqlite:///var/lib/akoya-gateway/grants.db")
    return path


def _redis(url: str, clock: Clock) -> Store:
    try:
        from akoya_gateway.store.redis.store import RedisStore  # noqa: PLC0415  # only those who use it need it
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "redis":
            raise
        raise OperatorError(
            f"sessions.store: {describe(url)} needs the Redis client: pip install 'akoya-gateway[redis]'"
        ) from missing
    return RedisStore.from_url(url, clock)
