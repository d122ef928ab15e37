"""What a start of `akoya-gateway run` imports, which decides its time and most of the memory of an idle worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from benchmarks.rig.installation import OPTIONS, link_packages
from tests.support.processes import wait_for_port
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
import sys
from akoya_gateway.cli import main
try:
    main()
finally:
    print(*(name for name, module in sys.modules.items() if getattr(module, "__spec__", None)), file=sys.stderr)
"""


def test_gateway_imports_only_what_its_configuration_needs(tmp_path: Path) -> None:
    store = {"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
    run = Running(tmp_path, changes={"sessions": store})
    environ = {**os.environ, **ENVIRON, **link_packages(tmp_path / "installation")}
    command = [sys.executable, *OPTIONS, "-c", RUN, "run", "--config", str(run.gateway.config_path)]
    printed = tmp_path / "printed"
    with run.upstream, printed.open("wb") as out, subprocess.Popen(command, env=environ, stderr=out) as process:
        try:
            wait_for_port(run.port, log=printed)
            assert httpx.get(f"{run.url}/public/x", timeout=30).status_code == 200
        finally:
            process.terminate()
    modules = printed.read_text().split()  # complete, because the process has exited
    packages = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    assert packages - set(sys.stdlib_module_names) - PACKAGES == set()
    assert [name for name in modules if name.startswith(NEVER)] == []
