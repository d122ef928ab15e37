"""Types the commands of the README, one after the other, as somebody at a terminal does."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.logs import complete_lines
from tests.support.markdown import ROOT, blocks
from tests.support.ports import free_port
from tests.support.shutdown import ended

README = (ROOT / "README.md").read_text()


def typed(command: str, folder: Path, *answers: str) -> str:
    """Run a command at a terminal of its own, answer its questions, and return what it printed."""
    terminal, end = pty.openpty()
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}
    process = subprocess.Popen(["bash", "-ec", command], cwd=folder, env=environ, stdin=end, stdout=end, stderr=end)
    os.close(end)
    os.write(terminal, "".join(f"{answer}\n" for answer in answers).encode())
    printed = b""
    try:
        while chunk := os.read(terminal, 4096):
            printed += chunk
    except OSError:
        pass  # Linux reports EIO when the last process has closed the terminal.
    finally:
        os.close(terminal)
        assert process.wait(120) == 0, printed.decode()
    return printed.decode()


@pytest.mark.timeout(300)
def test_commands_of_the_sidecar_section_lead_to_a_running_gateway(tmp_path: Path) -> None:
    section = README.partition("## As a sidecar in front of an app")[2]
    lines = [line.partition("  #")[0].strip() for line in next(blocks(section)).text.splitlines()]
    install, init, enter, check, run = lines
    assert (ROOT / install.split()[0]).is_file()
    port = free_port()
    printed = typed(
        "\n".join([init, enter, check]),
        tmp_path,
        "emulator", "sidecar", f"http://localhost:{port}", f"http://127.0.0.1:{free_port()}", "sqlite",
    )  # fmt: skip
    assert "gateway.yaml: fine" in printed
    config = tmp_path / "my-gateway" / "gateway.yaml"
    text = config.read_text()
    assert "127.0.0.1:9090" in text
    config.write_text(text.replace("127.0.0.1:9090", f"127.0.0.1:{free_port()}"))
    bash, akoya = shutil.which("bash"), f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert bash is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [bash, "-ec", f"{enter}\nexec {run}"], cwd=tmp_path, env={"PATH": akoya}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 120
        while "gateway started" not in complete_lines(tmp_path / "log"):
            assert process.poll() is None and time.monotonic() < deadline, complete_lines(tmp_path / "log")
            time.sleep(0.1)
        answer = httpx.get(f"http://localhost:{port}/", trust_env=False, timeout=30)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:akoya-gateway:problem:not-connected")
    finally:
        ended(process)


def test_commands_that_the_readme_names_exist() -> None:
    for script in re.findall(r"^(scripts/\w+)$", README, re.MULTILINE):
        assert os.access(ROOT / script, os.X_OK)
