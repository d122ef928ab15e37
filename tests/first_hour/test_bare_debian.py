"""A stopwatch: an ordinary user on a bare Debian types one command, and sees a balance within a minute.

Each Debian is made by debootstrap and contains Python and git only. Downloads do not count: they are in pip's cache
when the clock starts. Only with AKOYA_SOAK=full, as root, because debootstrap and chroot need it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.consent import consent
from tests.support.environment import Browser
from tests.support.ports import free_port
from tests.support.shutdown import children, ended, kill

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds from the command to the balance."""
MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ENTER = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
exec chroot --userspec=1000:1000 "$root" env -i HOME=/home/user PATH=/usr/bin:/bin LANG=C.UTF-8 PIP_CERT="$PIP_CERT" "$@"
"""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("AKOYA_SOAK") != "full", reason="only with AKOYA_SOAK=full"),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and chroot need root"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed"),
]


class Debian:
    """A root directory with a clone of this repository in the home directory of an ordinary user."""

    def __init__(self, root: Path, release: str) -> None:
        self.root = root
        packages = "--include=python3,git,ca-certificates"
        with (root.parent / f"{release}.log").open("wb") as log:
            subprocess.run(
                ["debootstrap", "--variant=minbase", packages, release, str(root), MIRROR],
                stdout=log,
                stderr=log,
                check=True,
            )
        shutil.copy("/etc/resolv.conf", root / "etc")
        shutil.copy(CERTIFICATES, root / "etc" / "ssl" / "certs")
        home = root / "home" / "user"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(home / "akoya")], check=True)
        subprocess.run(["chown", "-R", "1000:1000", str(home)], check=True)

    @contextmanager
    def running(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Run a script as the user, in the clone. The process and all it has started are killed on exit."""
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-ec",
            ENTER,
            "enter",
            str(self.root),
        ]
        process = subprocess.Popen(
            [*command, "bash", "-ec", f"cd ~/akoya\n{script}"], env={"PATH": os.environ["PATH"], "PIP_CERT": str(CERTIFICATES)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            kill(children(process.pid))  # The first of them is the init of the namespace: all others end with it.
            ended(process)

    def run(self, script: str) -> str:
        with self.running(script) as process:
            printed, _ = process.communicate(timeout=900)
        assert process.returncode == 0, printed
        return printed


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    folder = tmp_path_factory.mktemp(request.param)
    yield Debian(folder / "root", request.param)
    # --one-file-system: nothing must be removed through a mount, should one be left.
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def test_one_command_leads_to_a_balance_within_a_minute(debian: Debian) -> None:
    assert debian.run("! python3 -c 'import ensurepip'; ! command -v pip; id -u").endswith("1000\n")
    debian.run("scripts/install; rm -rf .venv")  # Downloads.
    port = free_port()
    began = time.monotonic()
    with debian.running(f"exec scripts/demo --port {port} --bank-port {free_port()}") as process:
        printed = ""
        assert process.stdout is not None
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        with httpx.Client(headers=Browser.NAVIGATION, follow_redirects=True, trust_env=False, timeout=30) as browser:
            page = consent(browser, browser.get(f"http://127.0.0.1:{port}/accounts"))
            # The page's script loads the balances from there.
            address = re.search(r'data-url="([^"]+)"', page.text)
            assert address is not None, page.text
            balances = browser.get(f"http://127.0.0.1:{port}{address[1]}")
        took = time.monotonic() - began
    assert re.search(r'"currentBalance": ?\d+\.\d+', balances.text), balances.text
    print(f"{took:.1f} s")
    assert took < LIMIT


def test_broken_virtual_environment_is_replaced(debian: Debian) -> None:
    version = ".venv/bin/akoya-gateway --version"
    upgraded = debian.run(f"scripts/install; ln -sf /usr/bin/python3.9 .venv/bin/python3; scripts/install; {version}")
    assert "Replacing .venv" in upgraded
    renamed = debian.run(f"mv ~/akoya ~/other; cd ~/other; scripts/install; {version}; mv ~/other ~/akoya")
    assert "Replacing .venv" in renamed
    assert "Replacing" not in debian.run("mv ~/akoya ~/other; cd ~/other; scripts/install; mv ~/other ~/akoya")


def test_tests_run_for_an_ordinary_user(debian: Debian) -> None:
    printed = debian.run("scripts/test tests/access/test_path_normalization.py 2>&1")
    assert re.search(r"\d+ passed", printed), printed
