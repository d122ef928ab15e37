"""The dependency arrows of docs/architecture.md, checked against the actual imports."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "akoya_gateway"
VERIFY = TESTS.parent / "akoya-verify" / "src" / "akoya_verify"
BASE = {
    "bounded_cache",
    "client_header_names",
    "client_headers",
    "clock",
    "connection_reset",
    "deadline",
    "errors",
    "host_header",
    "log",
    "process_environment",
    "secret",
    "tasks",
    "trusted_proxies",
    "version",
}
CONFIG = BASE | {"config.model"}

# Package -> the packages of the gateway that it may import. A dotted name allows only that module.
ALLOWED: dict[str, set[str]] = {
    "bounded_cache": set(),
    "client_header_names": set(),
    "client_headers": {"bounded_cache", "client_header_names", "log"},
    "clock": set(),
    "connection_reset": set(),
    "deadline": {"tasks"},
    "errors": set(),
    "host_header": set(),
    "log": set(),
    "process_environment": {"secret"},
    "secret": set(),
    "tasks": {"log"},
    "trusted_proxies": {"bounded_cache"},
    "version": set(),
    "config": CONFIG | {"config", "responses.page_templates", "responses.template_check", "store.redis.url"},
    "oauth": CONFIG | {"oauth"},
    "store": CONFIG | {"store"},
    "signing": CONFIG | {"signing"},
    "responses": CONFIG | {"responses"},
    "upstream": CONFIG | {"upstream"},
    "observability": CONFIG | {"observability"},
    "grants": CONFIG | {"grants", "store", "oauth"},
    "sessions": CONFIG | {"sessions", "store"},
    "provider": CONFIG | {"provider", "oauth"},
    "server": CONFIG | {"server", "observability", "config.diagnostics"},
    "doctor": CONFIG
    | {
        "doctor",
        "observability.redaction",
        "server.listeners",
        "store",
        "provider",
        "oauth",
        "config",
        "data_api",
        "grants.grant",
        "grants.repository",
    },
    "access": CONFIG | {"access", "grants.grant"},
    "data_api": CONFIG | {"data_api", "access.request", "grants", "provider", "store"},
    "authentication": CONFIG | {"authentication", "access", "sessions", "oauth", "provider"},
    "endpoints": CONFIG
    | {"endpoints", "authentication", "access", "responses", "grants", "sessions", "provider", "oauth", "signing"},
    "admission": CONFIG | {"admission", "authentication", "access", "responses", "grants", "sessions", "signing"},
    "gateway": CONFIG
    | {
        "gateway",
        "admission",
        "data_api",
        "endpoints",
        "authentication",
        "access",
        "responses",
        "grants",
        "sessions",
        "signing",
        "store",
        "provider",
        "oauth",
        "upstream",
        "observability",
        "config",
    },
    "fast_lane": CONFIG
    | {
        "fast_lane",
        "gateway",
        "admission",
        "authentication",
        "access",
        "responses",
        "sessions",
        "signing",
        "upstream",
        "server.http_protocol",
    },
    "entrypoints": CONFIG
    | {"entrypoints", "fast_lane", "gateway", "grants", "server", "observability", "config", "store", "data_api.call"},
    "sandbox": {"secret", "clock", "sandbox"},
    "testing": {"testing", "sandbox", "config", "gateway.middleware"},
    "verify": set(),
}
"""`cli` may import everything, and nothing imports `cli`."""

# Package -> what it may import of the distribution akoya-verify. Other packages may import nothing of it.
ALLOWED_VERIFY: dict[str, set[str]] = {
    "admission": {"akoya_verify.result"},
    "sandbox": {"akoya_verify"},
    "signing": {"akoya_verify.result", "akoya_verify.structured_fields"},
    "verify": {"akoya_verify"},
}
VERIFY_DEPENDENCIES = {"akoya_verify", "cryptography"}
# Module of akoya_verify -> the libraries that it may import as well. No other module imports one of these.
INTEGRATIONS: dict[str, set[str]] = {
    "starlette": {"starlette"},
    "fastapi": {"fastapi", "starlette"},
    "django": {"django", "asgiref"},
    "flask": {"flask"},
    "testing": {"starlette", "django", "flask"},
    "client": {"httpx"},
}
MAX_INTEGRATION_LINES = 150

# The pure core: functions and values, without I/O and without reading the clock.
PURE = ["oauth", "access", "grants/state_machine.py", "grants/grant.py"]
IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "httpx",
    "time",
    "datetime",
    "sqlite3",
    "redis",
    "threading",
    "subprocess",
    "os",
    "requests",
}


def modules() -> Iterator[Path]:
    yield from sorted(ROOT.rglob("*.py"))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
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


def test_imports_go_down() -> None:
    wrong = {str(path.relative_to(ROOT)): names for path in modules() if (names := forbidden_imports(path))}
    assert wrong == {}


def forbidden_imports(path: Path) -> list[str]:
    package = package_of(path)
    if package in ("cli", "__init__", "__main__"):
        return []
    allowed = ALLOWED[package]
    ours = [name.removeprefix("akoya_gateway.") for name in imports(path) if name.startswith("akoya_gateway.")]
    # `from akoya_gateway.config import model` also yields "config": check only the longest names.
    longest = [name for name in ours if not any(other.startswith(name + ".") for other in ours)]
    return [name for name in longest if not allows(allowed, name)]


def test_imports_of_akoya_verify_are_those_of_the_table() -> None:
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        for name in imports(path)
        if name.split(".")[0] == "akoya_verify"
        and package_of(path) != "cli"
        and not allows(ALLOWED_VERIFY.get(package_of(path), set()), name)
    }
    assert wrong == set()


def test_akoya_verify_imports_frameworks_only_in_their_integrations() -> None:
    wrong = set()
    for path in sorted(VERIFY.rglob("*.py")):
        own = path.relative_to(VERIFY).parts[0].removesuffix(".py")
        for name in imports(path):
            top, _, rest = name.partition(".")
            is_known = top in sys.stdlib_module_names | VERIFY_DEPENDENCIES | INTEGRATIONS.get(own, set())
            other = rest.partition(".")[0] if top == "akoya_verify" else own
            if not is_known or (other in INTEGRATIONS and other != own):
                wrong.add((str(path.relative_to(VERIFY)), name))
    assert wrong == set()


def test_each_integration_has_at_most_150_lines_that_are_not_blank() -> None:
    for name in ("starlette", "fastapi", "django", "flask"):
        paths = [VERIFY / f"{name}.py", *(VERIFY / name).glob("*.py")]
        lines = [line for path in paths if path.exists() for line in path.read_text("utf-8").splitlines() if line]
        assert 0 < len(lines) <= MAX_INTEGRATION_LINES, f"{name}: {len(lines)}"


def test_pure_core_has_no_io_and_no_clock() -> None:
    wrong = {}
    for target in (ROOT / place for place in PURE):
        for path in [target] if target.suffix else sorted(target.rglob("*.py")):
            if impure := {name.split(".")[0] for name in imports(path)} & IMPURE:
                wrong[str(path.relative_to(ROOT))] = impure
    assert wrong == {}


def test_store_knows_nothing_of_http_and_the_proxy_nothing_of_oauth() -> None:
    for path in (ROOT / "store").rglob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"httpx", "starlette", "uvicorn", "httptools"}
    for path in (ROOT / "upstream").rglob("*.py"):
        assert not {n.split(".")[1] for n in imports(path) if n.startswith("akoya_gateway.")} & {"oauth", "grants"}


def test_every_package_is_in_the_picture() -> None:
    picture = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    for entry in ROOT.iterdir():
        if entry.is_dir() and (entry / "__init__.py").exists():
            assert f"`{entry.name}`" in picture, f"docs/architecture.md does not mention {entry.name}"


def test_nothing_imports_the_commands() -> None:
    for path in modules():
        if package_of(path) not in ("cli", "__main__"):
            assert not [name for name in imports(path) if name.split(".")[:2] == ["akoya_gateway", "cli"]], path


def test_no_module_imports_itself_through_others() -> None:
    """Imports used only for types count too: a reader of one module needs the other."""
    names = {module_name(path): path for path in modules()}
    graph = {}
    for name, path in names.items():
        targets = {longest_module(target, names) for target in imports(path) if target.startswith("akoya_gateway.")}
        # A package's `__init__` does not count as a module here: it re-exports names of the modules below it.
        graph[name] = {t for t in targets if t and t != name and names[t].name != "__init__.py"}
    done: set[str] = set()
    for name in sorted(graph):
        circle = circle_from(name, graph, [], done)
        assert not circle, " -> ".join(circle)


def module_name(path: Path) -> str:
    return "akoya_gateway." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def longest_module(name: str, names: dict[str, Path]) -> str | None:
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name or None


def circle_from(name: str, graph: dict[str, set[str]], way: list[str], done: set[str]) -> list[str]:
    if name in way:
        return [*way[way.index(name) :], name]
    if name in done:
        return []
    for target in sorted(graph[name]):
        circle = circle_from(target, graph, [*way, name], done)
        if circle:
            return circle
    done.add(name)
    return []


def test_test_packages_import_only_themselves_and_the_shared_helpers() -> None:
    for path in sorted(TESTS.rglob("*.py")):
        package = path.relative_to(TESTS).parts[0].removesuffix(".py")
        names = [name.split(".") for name in imports(path) if name.startswith("tests.")]
        others = {parts[1] for parts in names} - {"support", package}
        assert not others, f"{path.relative_to(TESTS)} may import only tests.support and tests.{package}, not {others}"
        from_tests = {".".join(parts[:-1]) for parts in names if any(part.startswith("test_") for part in parts[:-1])}
        assert not from_tests, f"{path.relative_to(TESTS)} imports {from_tests}: a helper of several files has its own"
