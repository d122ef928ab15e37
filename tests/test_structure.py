"""The arrows of docs/architecture.md, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "akoya_gateway"
BASE = {"secret", "clock", "endings", "errors", "log", "peers", "memory", "surroundings", "client_headers"}
CONFIG = BASE | {"config.model"}

# Package -> what of ours it may import. A dotted name allows that module alone.
ALLOWED: dict[str, set[str]] = {
    "secret": set(),
    "clock": set(),
    "endings": {"log"},
    "errors": set(),
    "log": set(),
    "peers": set(),
    "surroundings": {"secret"},
    "memory": set(),
    "client_headers": {"log", "memory"},
    # The URL of a Redis is parsed in one place, which knows no Redis client.
    "config": BASE | {"config", "store.redis.address"},
    "protocol": CONFIG | {"protocol"},
    "store": BASE | {"store", "config.model"},
    "grants": CONFIG | {"grants", "store", "protocol"},
    "sessions": CONFIG | {"sessions", "store"},
    "provider": CONFIG | {"provider", "protocol"},
    "access": CONFIG | {"access", "grants.grant"},
    "signing": CONFIG | {"signing"},
    "upstream": CONFIG | {"upstream"},
    "answers": CONFIG | {"answers"},
    "journeys": CONFIG | {"journeys", "access", "answers", "grants", "sessions", "provider", "protocol", "signing"},
    "operations": CONFIG | {"operations", "store", "provider", "protocol", "config"},
    "sandbox": {"secret", "clock", "sandbox", "verify"},
    "verify": {"verify"},
}

# The pure core: functions and values, no I/O and no clock of its own.
PURE = ["protocol", "access", "grants/life.py", "grants/grant.py"]
IMPURE = {"asyncio", "socket", "ssl", "httpx", "time", "datetime", "sqlite3", "redis", "threading", "subprocess", "os", "requests"}


def modules() -> Iterator[Path]:
    yield from sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def allows(allowed: set[str], name: str) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in allowed)


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    allowed = ALLOWED.get(package_of(path))
    if allowed is None:
        return
    ours = [name.removeprefix("akoya_gateway.") for name in imports(path) if name.startswith("akoya_gateway.")]
    # `from akoya_gateway.config import model` also yields "config": judge the longest names only.
    longest = [name for name in ours if not any(other.startswith(name + ".") for other in ours)]
    wrong = [name for name in longest if not allows(allowed, name)]
    assert not wrong, f"{path.relative_to(ROOT)} reaches up to {wrong}"


@pytest.mark.parametrize("place", PURE)
def test_the_pure_core_has_no_io_and_no_clock(place: str) -> None:
    target = ROOT / place
    for path in [target] if target.suffix else sorted(target.rglob("*.py")):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & IMPURE, f"{path.relative_to(ROOT)} imports {roots & IMPURE}"


def test_the_store_knows_nothing_of_http_and_the_proxy_nothing_of_oauth() -> None:
    for path in (ROOT / "store").rglob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"httpx", "starlette", "uvicorn", "httptools"}
    for path in (ROOT / "upstream").rglob("*.py"):
        assert not {n.split(".")[1] for n in imports(path) if n.startswith("akoya_gateway.")} & {"protocol", "grants"}


def test_every_package_is_in_the_picture() -> None:
    picture = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    for entry in ROOT.iterdir():
        if entry.is_dir() and (entry / "__init__.py").exists():
            assert f"`{entry.name}`" in picture, f"docs/architecture.md does not mention {entry.name}"
