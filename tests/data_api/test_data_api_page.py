"""Runs the programs of docs/data-api.md as they are printed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data_api.conftest import BEARER, CHANGES
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import PYTHON

PAGE = (Path(__file__).parents[2] / "docs" / "data-api.md").read_text()
FILES = dict(re.findall(r"(?ms)^```(?:python|js)\n(?:#|//) (\S+)\n(.*?)^```$", PAGE))
IN_NODE = """
import {balances} from "./balances.mjs";
const [base, cookie, bank] = process.argv.slice(2);
const send = globalThis.fetch;
globalThis.fetch = (path, options) => send(base + path, {...options, headers: {...options.headers, cookie}});
console.log(JSON.stringify(await balances(bank)));
"""
"""Does what a browser does for a script of a page: adds the origin and the cookie."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    settings = {"v3_rate_limit": None}
    folder = tmp_path_factory.mktemp("env")
    with GatewayEnv(folder, token_bearer=BEARER, settings=settings, changes=CHANGES) as env:
        yield env


def test_nightly_job_gets_the_data_of_owners_and_says_who_has_to_connect(
    env: GatewayEnv, browser: Browser, tmp_path: Path
) -> None:
    for name in ("bank_data.py", "nightly.py"):
        (tmp_path / name).write_text(FILES[name])
    owner = browser.passed()["akoya-owner"]
    environ = {"PATH": "/usr/bin:/bin", "GATEWAY_ADMIN_URL": env.admin_url, "GATEWAY_TOKEN_BEARER": BEARER}

    def run() -> str:
        command = [PYTHON, str(tmp_path / "nightly.py")]
        owners = f"{owner} own_unknown"
        done = subprocess.run(
            command, input=owners, env=environ, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    connect = f"own_unknown has to connect the bank at {env.url}/akoya/connect/mikomo\n"
    assert run() == f"{owner} 3 accounts\n{connect}"
    env.akoya.fault("status", "data.balances", status=408, times=1)
    assert run() == f"{owner} later: The bank did not respond in time\n{connect}"


def test_script_of_a_page_gets_the_data_or_where_to_connect(env: GatewayEnv, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "balances.mjs").write_text(FILES["balances.js"])
    (tmp_path / "main.mjs").write_text(IN_NODE)
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)

    def run(bank: str) -> str:
        command = ["node", str(tmp_path / "main.mjs"), env.url, cookie, bank]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Everyday Checking" in run("mikomo")
    assert f'{{"connect":"{env.url}/akoya/connect/other' in run("other")
