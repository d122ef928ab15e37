"""Carries out docs/tutorial.md: writes its files, starts its servers, runs its commands and connects its bank."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from akoya_gateway.sandbox import SandboxServer
from akoya_verify import Verified
from tests.support.consent import consent
from tests.support.environment import Browser
from tests.support.logs import complete_lines
from tests.support.markdown import ROOT, Block, blocks, commands, pattern, trimmed
from tests.support.ports import free_port
from tests.support.sandbox_client import connect
from tests.support.shutdown import ended

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
PORTS = ("8080", "3000", "9100", "9090")
SERVERS = ("akoya-gateway run", "akoya-gateway sandbox", "python app.py &")


class Newcomer:
    """Follows the page in a directory and with ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS}
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "COLUMNS": "160",
            "PYTHONUNBUFFERED": "1",
        }
        self._stack = ExitStack()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        options: dict[str, Any] = {
            "headers": Browser.NAVIGATION,
            "follow_redirects": True,
            "trust_env": False,
            "timeout": 30,
        }
        self._browser = self._stack.enter_context(httpx.Client(**options))

    def __enter__(self) -> Newcomer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def own(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self.ports[found[1]], text)

    def follow(self, block: Block) -> None:
        text = self.own(block.text)
        if name := re.match(r"# (app\.py|gateway\.yaml)\n", text):
            (self.folder / name[1]).write_text(text)
        elif block.language == "console":
            for command, shown in commands(text):
                self.run(command, shown)
        elif block.language == "text":
            self.reload_until(pattern(text))
        elif text.strip() in SERVERS:
            self.serve(text.strip(), "")

    def run(self, command: str, shown: str) -> None:
        if command.startswith(SERVERS):
            self.serve(command, shown)
        else:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, env=self.environ, text=True, timeout=60, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert pattern(shown).fullmatch(trimmed(done.stdout)), f"$ {command}\n{done.stdout}\nbut shown is\n{shown}"

    def serve(self, command: str, shown: str) -> None:
        """Run a command in the background and wait until it has printed the shown output."""
        command = command.removesuffix(" &")
        program = " ".join(command.split()[:2])
        if program in self._servers:  # The page says: stop it with Ctrl-C and start it again.
            self._servers[program].send_signal(signal.SIGINT)
            self._servers[program].wait(60)
        if program == "akoya-gateway sandbox":
            uris = (
                f"--redirect-uri http://{host}:{self.ports['8080']}/akoya/callback"
                for host in ("127.0.0.1", "localhost")
            )
            command += f" --port {self.ports['9100']} {' '.join(uris)}"
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command.split(), cwd=self.folder, env=self.environ, stdout=output, stderr=output)
        self._stack.callback(ended, process)
        self._servers[program] = process
        deadline = time.monotonic() + 60
        while not (pattern(shown).fullmatch(trimmed(complete_lines(log))) if shown else self._listening("3000")):
            assert process.poll() is None and time.monotonic() < deadline, (
                f"$ {command}\n{complete_lines(log)}\n{shown}"
            )
            time.sleep(0.1)

    def _listening(self, port: str) -> bool:
        try:
            httpx.get(f"http://127.0.0.1:{self.ports[port]}/", trust_env=False, timeout=60)
        except httpx.TransportError:
            return False
        return True

    def reload_until(self, shown: re.Pattern[str]) -> None:
        """Open the app's page, as often as necessary, until the browser shows this. Consent where the bank asks."""
        deadline = time.monotonic() + 60
        text = ""
        while not shown.fullmatch(trimmed(text)):
            assert time.monotonic() < deadline, f"{text}\nbut shown is\n{shown.pattern}"
            page = self._browser.get(f"http://127.0.0.1:{self.ports['8080']}/")
            text = (consent(self._browser, page) if page.url.port == int(self.ports["9100"]) else page).text


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    with Newcomer(tmp_path) as newcomer:
        yield newcomer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(400)
def test_tutorial_is_true(newcomer: Newcomer) -> None:
    followed = list(blocks(TEXT))
    assert {block.language for block in followed} == {"sh", "python", "console", "yaml", "text"}
    for block in followed:
        newcomer.follow(block)


def test_apps_data_path_is_right_for_a_connector_with_another_name() -> None:
    """A connector of gateway.yaml may have a name of its own (`connectors.*.connector` is Akoya's)."""
    code = next(block.text for block in blocks(TEXT) if block.text.startswith("# app.py"))
    app: dict[str, Any] = {}
    with SandboxServer() as akoya:
        program = code.partition("keys = RemoteKeys")[0].replace("http://127.0.0.1:9100", akoya.url)
        exec(compile(program, "app.py", "exec"), app)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        verified = Verified(
            "own_x", "savings", connect(akoya)["id_token"], provider="mikomo", interaction_type="user", last_access=now
        )
        statuses: list[str] = []
        body = b"".join(app["app"]({"akoya": verified}, lambda status, headers: statuses.append(status)))
    assert (statuses, b"Everyday Checking" in body) == (["200 OK"], True)
