"""The compose profile with the emulator: its processes, started with its files and commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.consent import consent
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess, wait_for_port
from tests.support.shutdown import ending

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"


def environ() -> dict[str, str]:
    lines = (FOLDER / "sandbox.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def services() -> dict[str, Any]:
    """Return the services with the variables of sandbox.env, as Compose replaces them."""

    def value(found: re.Match[str]) -> str:
        return environ().get(found[1], found[2] or "")

    text = re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", value, (FOLDER / "compose.yaml").read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def test_profile_changes_only_what_the_emulator_replaces() -> None:
    usual, sandbox = (yaml.safe_load((FOLDER / name).read_text()) for name in ("gateway.yaml", "gateway.sandbox.yaml"))
    for config in (usual, sandbox):
        del config["environments"], config["clients"]["demo-app"]["environment"]
        del config["upstreams"]["bank-data"]["data_api"]
    assert usual == sandbox
    assert services()["gateway"]["volumes"] == ["./gateway.sandbox.yaml:/etc/akoya-gateway/gateway.yaml:ro"]
    assert services()["emulator"]["profiles"] == ["sandbox"]
    assert all("profiles" not in one for name, one in services().items() if name != "emulator")
    required = set(re.findall(r"\$\{(\w+):\?", (FOLDER / "compose.yaml").read_text()))
    assert required <= set(environ())


def test_bank_is_connected_at_the_emulator_of_the_profile(tmp_path: Path) -> None:
    """The commands and the configuration as they are shipped. Only addresses and the store are others."""
    bank, port, admin, app = (free_port() for _ in range(4))

    def moved(text: str) -> str:
        for old, new in (("localhost:9100", f"127.0.0.1:{bank}"), ("localhost:8080", f"127.0.0.1:{port}")):
            text = text.replace(old, new)
        return text

    emulator = services()["emulator"]
    changes = {"0.0.0.0": "127.0.0.1", "9100": str(bank)}
    command = [changes.get(word, moved(word)) for word in emulator["command"]]
    redirect = ["--redirect-uri", f"http://127.0.0.1:{port}/akoya/callback"]
    config = yaml.safe_load(moved((FOLDER / "gateway.sandbox.yaml").read_text()))
    config["listen"], config["admin"]["listen"] = f"127.0.0.1:{port}", f"127.0.0.1:{admin}"
    config["upstream"] = {"url": f"http://127.0.0.1:{app}"}
    config["sessions"]["store"] = f"sqlite://{tmp_path}/grants.db"
    running = subprocess.Popen(
        [sys.executable, "-m", "akoya_gateway", *command, *redirect], env=emulator["environment"]
    )
    with ending(running), GatewayProcess(tmp_path, config, environ()):
        wait_for_port(bank)
        options: dict[str, Any] = {"trust_env": False, "timeout": 30, "follow_redirects": True}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", **options) as browser:
            navigation = {"accept": "text/html", "sec-fetch-mode": "navigate"}
            consent(browser, browser.get("/akoya/connect/mikomo", headers=navigation))
            listed = browser.get("/akoya/", headers={"accept": "application/json"})
        assert [one["connector"] for one in listed.json()["connections"]] == ["mikomo"], listed.text
