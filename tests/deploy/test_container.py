"""The image: the commands of its Containerfile, what its root file system holds, and the real thing under `soak`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import yaml

from tests.support.commands import run_command
from tests.support.ports import free_port
from tests.support.processes import AppServer, GatewayProcess
from tests.support.sidecar import App
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "container"
SHELLS = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "pip", "pip3", "env", "cat", "ls"}
SOAK = pytest.mark.skipif(os.environ.get("AKOYA_SOAK") != "full", reason="takes minutes: AKOYA_SOAK=full")


def header() -> str:
    lines = (FOLDER / "Containerfile").read_text().splitlines()
    return "\n".join(line[1:].strip() for line in lines[: lines.index("")])


def make_secrets(folder: Path) -> None:
    """Run the commands of the header that make the secrets, with this checkout in place of the image."""
    made = re.findall(r"podman run --rm akoya-gateway (keys new.*) > secrets/(\S+)", header())
    assert [name for _, name in made] == ["store-key", "signing-key.pem"]
    for arguments, name in made:
        (folder / name).write_text(run_command(*arguments.split()).stdout)
    for name in re.findall(r'printf %s "\$\w+" > secrets/(\S+)', header()):
        (folder / name).write_text(f"the-{name}-of-a-test")
    for file in folder.iterdir():
        file.chmod(0o600)


@contextmanager
def example(folder: Path, secrets: str) -> Iterator[tuple[str, int, int]]:
    """Yield the example's text with free ports, and the ports. Its app runs until the block ends."""
    port, admin = free_port(), free_port()
    with AppServer(App()) as app:
        text = (FOLDER / "example" / "gateway.yaml").read_text()
        for old, new in (
            ("localhost:8080", f"localhost:{port}"),
            ("0.0.0.0:8080", f"127.0.0.1:{port}"),
            ("127.0.0.1:9090", f"127.0.0.1:{admin}"),
            ("http://host.containers.internal:3000", app.url),
            ("/run/secrets/akoya-gateway", secrets),
        ):
            assert old in text
            text = text.replace(old, new)
        yield text, port, admin


def responses(port: int, admin: int) -> bool:
    ready = httpx.get(f"http://127.0.0.1:{admin}/readyz", trust_env=False).status_code
    return (ready, httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text) == (200, "done")


def test_example_runs_with_the_secrets_that_the_header_makes(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    make_secrets(secrets)
    with example(tmp_path, str(secrets)) as (text, port, admin):
        text = text.replace("/var/lib/akoya-gateway", str(tmp_path))
        with GatewayProcess(tmp_path, yaml.safe_load(text), {}):
            until(lambda: responses(port, admin), "it is ready, and the app responds")


def test_folders_that_the_header_mounts_are_those_of_the_image_and_the_example() -> None:
    command = header()[header().index("podman run --read-only") :]
    mounts = dict(re.findall(r"-v (\S+?):(\S+?)(?::ro)?(?=\s)", command))
    assert mounts == {
        "./deploy/container/example": "/etc/akoya-gateway",
        "./secrets": "/run/secrets/akoya-gateway",
        "grants": "/var/lib/akoya-gateway",
    }
    assert (FOLDER / "example" / "gateway.yaml").exists()
    assert int(re.findall(r"--stop-timeout (\d+)", command)[0]) >= 30 + 45
    text = (FOLDER / "Containerfile").read_text()
    assert "VOLUME /var/lib/akoya-gateway" in text
    assert text.index("FROM scratch") < text.index("COPY --from=build /rootfs /"), "nothing of a distribution is left"


def rootfs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rootfs", FOLDER / "rootfs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_root_file_system_gets_the_interpreter_and_the_libraries_that_it_loads() -> None:
    module = rootfs()
    found = list(module.links(Path(sys.executable)))
    assert found[0] == Path(sys.executable)
    assert found[-1].is_file() and not found[-1].is_symlink()
    names = {path.name for path in module.libraries([found[-1].resolve()])}
    assert any(name.startswith("libc.so") for name in names)
    assert any(name.startswith("ld-") for name in names), "the dynamic loader"


class Image:
    """The image, built by buildah on a base that debootstrap makes, because no registry may be reachable."""

    def __init__(self, folder: Path) -> None:
        self._buildah = ["buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        base = folder / "base"
        packages = "--include=python3,python3-venv,ca-certificates"
        self._run("debootstrap", "--variant=minbase", packages, "bookworm", str(base), "http://deb.debian.org/debian")
        scratch = self.buildah("from", "scratch")
        self.buildah("add", scratch, str(base), "/")
        self.buildah("commit", "--quiet", scratch, "localhost/base")
        shared = [path for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt") if Path(path).exists()]
        volumes = [word for path in shared for word in ("--volume", f"{path}:{path}:ro")]
        file = ["--file", str(FOLDER / "Containerfile"), "--tag", "akoya-gateway", str(ROOT)]
        self.buildah(
            "bud", "--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base", *volumes, *file
        )
        self.container = self.buildah("from", "akoya-gateway")

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def buildah(self, *arguments: str) -> str:
        return self._run(*self._buildah, *arguments)

    def run(self, *arguments: str) -> list[str]:
        """Return the command that runs a program in the container, without capabilities.

        `chroot` isolation, because a container runtime needs control groups that a container itself may not have.
        """
        return [*self._buildah, "run", "--isolation", "chroot", "--cap-drop", "all", *arguments]


@SOAK
@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.skipif(
    shutil.which("buildah") is None or os.geteuid() != 0, reason="needs buildah, and root for debootstrap"
)
def test_image_is_built_without_a_shell_and_runs_the_example(tmp_path: Path) -> None:
    image = Image(tmp_path)
    mounted = Path(image.buildah("mount", image.container))
    names = {path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/akoya-gateway/bin")
             if (mounted / folder).is_dir() for path in (mounted / folder).iterdir()}  # fmt: skip
    assert "akoya-gateway" in names
    assert not names & SHELLS
    config, secrets = tmp_path / "config", tmp_path / "secrets"
    for folder in (config, secrets):
        folder.mkdir()
    make_secrets(secrets)
    for path in (secrets, *secrets.iterdir()):
        os.chown(path, 10001, 10001)
    with example(tmp_path, "/run/secrets/akoya-gateway") as (text, port, admin):
        (config / "gateway.yaml").write_text(text)
        volumes = ["-v", f"{config}:/etc/akoya-gateway:ro", "-v", f"{secrets}:/run/secrets/akoya-gateway:ro"]
        run = image.run("--user", "10001:10001", *volumes, image.container, "--")
        command = ["akoya-gateway", "run", "--config", "/etc/akoya-gateway/gateway.yaml"]
        with subprocess.Popen([*run, *command]) as process:
            try:
                until(lambda: responses(port, admin), "it is ready, and the app responds", within=120)
                [worker] = httpx.get(f"http://127.0.0.1:{admin}/readyz", trust_env=False).json()["workers"]
                status = Path(f"/proc/{worker['pid']}/status").read_text()
                assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
                assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
                health = ["akoya-gateway", "health", "--config", "/etc/akoya-gateway/gateway.yaml"]
                assert subprocess.run([*run, *health], check=False, timeout=120).returncode == 0
                os.kill(worker["pid"], signal.SIGTERM)
                assert process.wait(120) == 0
            finally:
                process.kill()
