"""What `akoya-gateway run` imports and sets when it starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.rig.installation import OPTIONS, link_packages
from tests.support.processes import AS_INSTALLED, wait_for_port
from tests.support.sidecar import ENVIRON, Running

PACKAGES = {
    "akoya_gateway", "akoya_verify", "anyio", "attr", "attrs", "brotli", "certifi", "click", "cryptography", "h11",
    "httpcore", "httptools", "httpx", "idna", "jinja2", "joserfc", "jsonschema", "jsonschema_specifications",
    "markupsafe", "prometheus_client", "referencing", "rpds", "starlette", "structlog", "typing_extensions", "uvicorn",
    "uvloop", "websockets", "yaml", "zstandard",
}  # fmt: skip
"""The packages that a start may import. Each is needed, or imported by one that is."""
NEVER = (
    "akoya_gateway.doctor", "akoya_gateway.sandbox", "akoya_gateway.store.redis.client", "akoya_gateway.testing",
    "sqlite3", "unittest", "xml",
)  # fmt: skip
"""Modules that a gateway with the memory store does not need."""
RUN = """
import os, sys
from akoya_gateway.cli import main
try:
    main()
finally:
    with open(os.environ["MODULES"], "w") as file:
        print(*(name for name, module in sys.modules.items() if getattr(module, "__spec__", None)), file=file)
"""


def modules_of(folder: Path, store: str, *options: str) -> list[str]:
    """Return the modules of a gateway, or of its supervisor, that has served a request and been stopped."""
    run = Running(folder, changes={"sessions": {"store": store, "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}})
    modules = folder / "modules"
    environ = {**os.environ, **ENVIRON, **link_packages(folder / "installation"), "MODULES": str(modules)}
    command = [sys.executable, *OPTIONS, "-c", RUN, "run", "--config", str(run.gateway.config_path), *options]
    with run.upstream, subprocess.Popen(command, env=environ) as process:
        try:
            wait_for_port(run.port, process)
            assert httpx.get(f"{run.url}/public/x", timeout=30).status_code == 200
        finally:
            process.terminate()
    return modules.read_text().split()  # complete, because the process has exited


def test_gateway_imports_only_what_its_configuration_needs(tmp_path: Path) -> None:
    modules = modules_of(tmp_path, "memory://")
    packages = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    assert packages - set(sys.stdlib_module_names) - PACKAGES == set()
    assert [name for name in modules if name.startswith(NEVER)] == []


def test_supervisor_imports_what_its_workers_share(tmp_path: Path) -> None:
    modules = modules_of(tmp_path, f"sqlite://{tmp_path}/grants.db", "--workers", "2")
    assert {"akoya_gateway.store.sqlite", "httpcore"} <= set(modules)


READ_BODIES = """
from resource import RUSAGE_SELF, getrusage
from akoya_gateway.entrypoints.sidecar import keep_freed_memory
keep_freed_memory()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(100):
    blocks = [b"x" * 250_000 for _ in range(4)]
    del blocks
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries manage memory differently")
def test_freed_memory_of_bodies_is_used_again_without_page_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_BODIES],
        env={**os.environ, "PYTHONPATH": AS_INSTALLED},
        capture_output=True,
        check=True,
    )
    # The first round needs 250 pages. Without `keep_freed_memory` most rounds do: 15,000 pages.
    assert int(done.stdout) < 2_000
