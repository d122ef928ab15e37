"""Checks of the files under deploy/ that need neither a container engine nor a cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from akoya_gateway.config.loader import validate_config
from akoya_gateway.config.reader import NO_SECRETS
from tests.support.commands import run_command
from tests.support.environment import GatewayEnv

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SIDECAR = DEPLOY / "kubernetes" / "sidecar.yaml"
CHART = DEPLOY / "helm" / "akoya-gateway"
KUBERNETES = "1.31"


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def configurations() -> dict[str, str]:
    """Every gateway.yaml that is shipped for a deployment."""
    found = {"compose": (DEPLOY / "compose" / "gateway.yaml").read_text()}
    found["container"] = (DEPLOY / "container" / "example" / "gateway.yaml").read_text()
    found["compose with the emulator"] = (DEPLOY / "compose" / "gateway.sandbox.yaml").read_text()
    found["kubernetes"] = next(
        d["data"]["gateway.yaml"] for d in documents(SIDECAR.read_text()) if d["kind"] == "ConfigMap"
    )
    return found


@pytest.mark.parametrize("name", configurations())
def test_configurations_have_no_fault(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(configurations()[name])
    result = validate_config(path, {}, secrets=NO_SECRETS)
    assert [str(diagnostic) for diagnostic in result.diagnostics] == []
    assert result.config is not None
    assert [warning for warning in result.config.warnings if "trusted_proxies" in warning] == []


def test_token_route_that_the_sidecar_manifest_suggests_passes_the_check(tmp_path: Path) -> None:
    enabled = re.sub(r"# (token_bearer:|insecure_http:)", r"\1", SIDECAR.read_text())
    written = tmp_path / "gateway.yaml"
    config = yaml.safe_load(next(yaml.safe_load_all(enabled))["data"]["gateway.yaml"])
    written.write_text(yaml.safe_dump(config, sort_keys=False))
    assert [str(each) for each in validate_config(written, {}, secrets=NO_SECRETS).diagnostics] == []
    del config["admin"]["insecure_http"]
    written.write_text(yaml.safe_dump(config, sort_keys=False))
    [refused] = validate_config(written, {}, secrets=NO_SECRETS).diagnostics
    assert "set admin.insecure_http: true" in str(refused)


@pytest.mark.parametrize("document", documents(SIDECAR.read_text()), ids=lambda d: d["kind"])
def test_manifests_fit_the_kubernetes_schema(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def pods() -> dict[str, dict[str, Any]]:
    spec = next(d for d in documents(SIDECAR.read_text()) if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    return {container["name"]: container for container in spec["containers"]}


def test_containers_are_locked_down() -> None:
    for container in pods().values():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def grace_periods() -> dict[str, tuple[float, float]]:
    """For each file that starts the gateway: the seconds that it gets to end, and the sum of its own periods."""
    spec = next(d for d in documents(SIDECAR.read_text()) if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]["gateway"]
    command = " ".join(map(str, compose.get("command", [])))
    stop = re.search(r"TimeoutStopSec=(\d+)", unit())
    start = re.search(r"ExecStart=(.*)", unit())
    assert stop and start
    return {
        "kubernetes": (spec["terminationGracePeriodSeconds"], own_periods(" ".join(pods()["akoya-gateway"]["args"]))),
        "compose": (float(str(compose["stop_grace_period"]).removesuffix("s")), own_periods(command)),
        "systemd": (float(stop[1]), own_periods(start[1])),
    }


def own_periods(command: str) -> float:
    """Return drain delay and grace of a command line, in seconds. 30 is the default of --grace."""
    given = {name: float(value) for name, value in re.findall(r"--(drain-delay|grace)[ =](\d+)", command)}
    return given.get("drain-delay", 0) + given.get("grace", 30)


@pytest.mark.parametrize("name", ["kubernetes", "compose", "systemd"])
def test_grace_period_of_each_deployment_is_that_of_the_gateway_and_45_seconds(name: str) -> None:
    """A refresh in flight takes up to 15 s, and its response must reach the store (docs/operations.md, Draining)."""
    given, own = grace_periods()[name]
    assert given >= own + 45


def test_options_in_the_manifests_exist() -> None:
    shown = run_command("run", "--help", environ={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    used = set(re.findall(r"--[a-z-]+", " ".join(pods()["akoya-gateway"]["args"])))
    used |= set(
        re.findall(
            r"--[a-z-]+", (CHART / "templates" / "deployment.yaml").read_text().split("args:")[1].split("ports:")[0]
        )
    )
    used |= set(re.findall(r"--[a-z-]+", re.findall(r"ExecStart=.*", unit())[0]))
    assert [option for option in used if option not in shown] == []


def test_compose_file_publishes_nothing_but_the_gateway() -> None:
    services: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        # Without capabilities root cannot change its user ID, so the container must start as another user.
        assert service["image"] == "akoya-gateway" or service["user"].partition(":")[0].isdigit()


def test_services_that_reuse_the_image_disable_its_health_check() -> None:
    services: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    borrowed = [
        service for service in services.values() if service["image"] == "akoya-gateway" and "entrypoint" in service
    ]
    assert borrowed
    assert all(service["healthcheck"] == {"disable": True} for service in borrowed)


def test_modules_that_the_compose_file_runs_exist() -> None:
    entrypoint = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]["app"]["entrypoint"]
    assert importlib.util.find_spec(entrypoint[-1]) is not None


def unit() -> str:
    return (DEPLOY / "systemd" / "akoya-gateway.service").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_is_understood_and_hardened(tmp_path: Path) -> None:
    path = tmp_path / "akoya-gateway.service"
    path.write_text(unit().replace("/opt/akoya-gateway/bin/akoya-gateway", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "akoya-gateway.service" in line] == []
    exposure = subprocess.run(["systemd-analyze", "security", "--offline=yes", str(path)], capture_output=True, text=True,
                              check=False).stdout  # fmt: skip
    level = re.search(r"exposure level.*: ([\d.]+)", exposure)
    assert level is not None
    assert float(level[1]) < 2.0


def test_unit_reloads_only_a_valid_configuration_and_reads_secrets_where_they_change() -> None:
    """`ExecReload` stops at the first command that fails. systemd copies credentials at the start only."""
    settings = [line.partition("=")[::2] for line in unit().splitlines() if "=" in line and not line.startswith("#")]
    single = dict(settings)
    assert single["Type"] == "notify"
    assert int(single["WatchdogSec"]) > 0
    assert "LoadCredential" not in single
    check, reload = [value for name, value in settings if name == "ExecReload"]
    assert " check --config " in check
    assert reload == "/bin/kill -HUP $MAINPID"


def containerfile() -> list[str]:
    text = (DEPLOY / "container" / "Containerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_image_runs_as_an_unprivileged_user_and_has_a_health_check() -> None:
    final = containerfile()[max(i for i, line in enumerate(containerfile()) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in final
    assert any(line.startswith("HEALTHCHECK") and "health" in line.split("CMD")[1] for line in final)
    assert not any(word in line for line in final for word in ("SECRET", "PASSWORD", "curl", "apt-get"))


def test_build_context_holds_what_the_containerfile_copies_and_no_more() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in containerfile():
        if line.startswith("COPY") and "--from" not in line:
            copied |= {source.removeprefix("./") for source in line.split()[1:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_commands_of_the_containerfile_work_in_an_empty_environment(tmp_path: Path) -> None:
    """What the build stage copies is enough to install and start the gateway, without a home directory.

    The user and the dropped capabilities are up to the container engine and are not tested here.
    """
    context = tmp_path / "src"
    context.mkdir()
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "schema",
        "akoya_gateway",
        "akoya-verify",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / name)
    target = tmp_path / "installed"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run(
        [*pip, "--target", str(target), str(context / "akoya-verify"), str(context)], check=True, capture_output=True
    )
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(target),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
    }
    shown = subprocess.run([sys.executable, "-m", "akoya_gateway", "schema"], capture_output=True, text=True, check=True,
                           env=environ, cwd=target)  # fmt: skip
    assert '"$schema"' in shown.stdout
    assert (target / "akoya_gateway" / "responses" / "templates" / "style.css").exists()
    assert (target / "akoya_gateway" / "py.typed").exists()
    assert (target / "akoya_verify" / "py.typed").exists()


def test_health_check_of_the_image_reports_whether_the_gateway_is_ready(tmp_path: Path) -> None:
    line = next(line for line in containerfile() if line.startswith("HEALTHCHECK"))
    [program, *arguments] = yaml.safe_load(line.partition("CMD ")[2])
    assert program == "akoya-gateway"
    with GatewayEnv(tmp_path) as env:
        config = tmp_path / "probed.yaml"
        config.write_text(f"admin: {{listen: '127.0.0.1:{env.admin_port}'}}\n")
        arguments = [str(config) if one == "/etc/akoya-gateway/gateway.yaml" else one for one in arguments]
        assert run_command(*arguments).returncode == 0
    assert run_command(*arguments).returncode == 1
