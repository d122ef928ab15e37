"""`akoya-gateway health` against a running gateway, as a container's probe uses it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import run_command
from tests.support.environment import GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env")) as env:
        yield env


def health(*options: str) -> subprocess.CompletedProcess[str]:
    return run_command("health", *options)


def test_health_of_a_ready_gateway_is_0_by_url_and_by_configuration(env: GatewayEnv, tmp_path: Path) -> None:
    """Neither the secrets nor the rest of the file are read."""
    config = tmp_path / "gateway.yaml"
    config.write_text(f"admin: {{listen: '{env.admin_url.removeprefix('http://')}'}}\nclients: not yet written\n")
    for options in (["--url", env.admin_url], ["--config", str(config)], ["--config", str(config), "--live"]):
        done = health(*options)
        assert (done.returncode, done.stdout.strip()) == (0, "live" if "--live" in options else "ready"), done.stderr


def test_health_without_a_gateway_is_1_and_names_the_address() -> None:
    port_without_a_listener = free_port()
    done = health("--url", f"http://127.0.0.1:{port_without_a_listener}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"no response from the admin listener at 127.0.0.1:{port_without_a_listener}: ")


def test_health_of_a_draining_gateway_is_1_with_the_reason(tmp_path: Path) -> None:
    with GatewayEnv(tmp_path, options=("--drain-delay", "60")) as env:
        assert health("--url", env.admin_url).returncode == 0
        assert isinstance(env.gateway, GatewayProcess) and env.gateway.process is not None
        env.gateway.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while (done := health("--url", env.admin_url)).returncode == 0:
            assert time.monotonic() < deadline, "the gateway did not begin to drain"
        assert (done.returncode, done.stderr) == (1, "not ready: draining: this process was asked to stop\n")
        assert health("--url", env.admin_url, "--live").returncode == 0
        env.gateway.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "message"),
    [("admin: null\n", "`admin: null`"), ("admin: {listen: 9090}\n", "admin.listen cannot be read")],
)
def test_health_without_an_admin_listener_is_wrong_usage(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    done = health("--config", str(tmp_path / "gateway.yaml"))
    assert done.returncode == 2
    assert message in done.stderr


def test_health_refuses_an_invalid_url() -> None:
    for url in ("127.0.0.1:9090", "https://127.0.0.1:9090", "http://[", "http://"):
        done = health("--url", url)
        assert (done.returncode, "it begins with http://" in done.stderr) == (2, True), url
