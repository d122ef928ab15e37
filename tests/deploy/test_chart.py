"""The Helm chart, rendered by Helm itself with each file of its `ci/` folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from akoya_gateway.config.loader import validate_config
from akoya_gateway.config.reader import NO_SECRETS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "akoya-gateway"
KUBERNETES = "1.31"
INSTALLED = ROOT / ".venv" / "bin" / "helm"
HELM = str(INSTALLED) if INSTALLED.exists() else shutil.which("helm")
VALUES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
# kubernetes-validate has the schemas of Kubernetes itself. The test checks fields of these three instead.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")

Document = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first example of the chart's README: the configuration that the files of `ci/` change or keep."""
    path = tmp_path_factory.mktemp("chart") / "base.yaml"
    readme = (CHART / "README.md").read_text("utf-8")
    path.write_text(re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)[0])
    return path


def options(name: str, base: Path) -> list[str]:
    """Return the value files of an example: its own, over the base unless it has a whole configuration or ConfigMap."""
    own = CHART / "ci" / f"{name}.yaml"
    values = yaml.safe_load(own.read_text())
    is_whole = "existingConfigMap" in values or "public_url" in values.get("config", {})
    below = [] if is_whole else ["--values", str(base)]
    return [*below, "--values", str(own)]


@cache
def rendered(name: str, base: Path) -> dict[str, Document]:
    """Return the objects of an example by kind. The admin Service is `Service/admin`."""
    done = helm("template", "bank", str(CHART), *options(name, base))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a warning of Helm"
    found: dict[str, Document] = {}
    for document in filter(None, yaml.safe_load_all(done.stdout)):
        admin = document["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        kind = f"{document['kind']}/{admin}" if admin and document["kind"] == "Service" else document["kind"]
        assert kind not in found
        found[kind] = document
    return found


def pod(name: str, base: Path) -> Document:
    spec: Document = rendered(name, base)["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", VALUES)
def test_chart_with_each_example_passes_lint_and_fits_the_schema_of_kubernetes(name: str, base: Path) -> None:
    linted = helm("lint", "--strict", str(CHART), *options(name, base))
    assert linted.returncode == 0, linted.stdout
    for document in rendered(name, base).values():
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "existing-objects"])
def test_configuration_of_each_example_has_no_fault_and_only_the_banks_of_the_operator(
    name: str, base: Path, tmp_path: Path
) -> None:
    text = rendered(name, base)["ConfigMap"]["data"]["gateway.yaml"]
    (tmp_path / "gateway.yaml").write_text(text)
    result = validate_config(tmp_path / "gateway.yaml", {}, secrets=NO_SECRETS)
    assert [str(diagnostic) for diagnostic in result.diagnostics] == []
    assert result.config is not None
    assert [warning for warning in result.config.warnings if "trusted_proxies" in warning] == []
    config = yaml.safe_load(text)
    assert list(config["connectors"]) == ["first-bank"]
    assert list(config["clients"]) == ["app"]
    ports = {port["name"]: port["containerPort"] for port in pod(name, base)["containers"][0]["ports"]}
    assert config["listen"] == f"0.0.0.0:{ports['http']}"
    assert config["admin"]["listen"] == f"0.0.0.0:{ports['admin']}"


@pytest.mark.parametrize("name", VALUES)
def test_pod_of_each_example_is_locked_down_and_outlives_a_refresh(name: str, base: Path) -> None:
    spec = pod(name, base)
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    periods = dict(re.findall(r"--(drain-delay|grace)=(\d+)", " ".join(container["args"])))
    assert spec["terminationGracePeriodSeconds"] == int(periods["drain-delay"]) + int(periods["grace"]) + 45


@pytest.mark.parametrize("name", VALUES)
def test_selectors_of_each_example_find_its_pods_and_ports_and_nothing_else(name: str, base: Path) -> None:
    objects = rendered(name, base)
    template = objects["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    names = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    for kind in ("Service", "Service/admin"):
        assert objects[kind]["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in objects[kind]["spec"]["ports"]} <= names
    tested = objects["Pod"]["metadata"]["labels"].items()
    assert not objects["Service"]["spec"]["selector"].items() <= tested, "the test's pod would get users' requests"
    assert [port["name"] for port in objects["Service"]["spec"]["ports"]] == ["http"], "the admin port is not public"


def test_chart_refuses_what_cannot_work(base: Path) -> None:
    refused = {
        (): "config is empty",
        ("--values", str(base), "--set", "existingConfigMap=x"): "both set",
        ("--values", str(base), "--set", "config.sessions.store=sqlite:/a"): "replicas cannot share",
        ("--values", str(base), "--set", "config.sessions.store=memory://"): "replicas cannot share",
        ("--values", str(base), "--set", "replicas=abc"): "replicas",
        ("--values", str(base), "--set", "unknownkey=1"): "unknownkey is not allowed",
        ("--values", str(base), "--set", "image.digest=latest"): "digest",
        ("--values", str(base), "--set", "ingress.enabled=true"): "ingress.hosts is empty",
        ("--values", str(base), "--set", "httpRoute.enabled=true"): "httpRoute.parentRefs is empty",
    }
    for arguments, reason in refused.items():
        done = helm("template", "bank", str(CHART), *arguments)
        assert done.returncode != 0, arguments
        assert reason in done.stderr, (arguments, done.stderr)


def test_pods_are_replaced_only_if_a_setting_cannot_be_reloaded(base: Path) -> None:
    def checksum(*changes: str) -> str:
        done = helm("template", "bank", str(CHART), "--values", str(base), *changes)
        found = re.search(r"checksum/restart: (\w+)", done.stdout)
        assert found, done.stderr
        return found[1]

    unchanged = checksum()
    assert checksum("--set", "config.connectors.first-bank.name=Other") == unchanged
    assert checksum("--set", "config.logging.level=debug") != unchanged
    assert checksum("--set", "config.admin.listen=0.0.0.0:9999") != unchanged
    assert checksum("--set", "ports.http=8081") != unchanged


def test_names_follow_the_conventions_of_helm(base: Path) -> None:
    def name(release: str, *changes: str) -> str:
        done = helm("template", release, str(CHART), "--values", str(base), *changes, "-s", "templates/deployment.yaml")
        return str(yaml.safe_load(done.stdout)["metadata"]["name"])

    assert name("bank") == "bank-akoya-gateway"
    assert name("akoya-gateway") == "akoya-gateway"
    assert name("bank", "--set", "nameOverride=gw") == "bank-gw"
    assert name("bank", "--set", "fullnameOverride=other") == "other"
    assert len(name("x" * 53, "--set", "nameOverride=" + "y" * 30)) <= 63


def test_examples_set_what_they_are_named_for(base: Path) -> None:
    ingress = rendered("ingress", base)["Ingress"]["spec"]
    assert ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == "bank-akoya-gateway"
    assert ingress["tls"] == [{"hosts": ["app.example.com"], "secretName": "app-tls"}]
    route = rendered("gateway-api", base)["HTTPRoute"]["spec"]
    assert route["rules"][0]["backendRefs"] == [{"name": "bank-akoya-gateway", "port": 80}]
    assert route["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    scaled = rendered("autoscaling", base)
    assert "replicas" not in scaled["Deployment"]["spec"], "it would undo the autoscaler at every upgrade"
    assert scaled["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 9
    assert scaled["PodDisruptionBudget"]["spec"]["maxUnavailable"] == "25%"
    monitored = rendered("monitoring", base)
    wanted = monitored["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert wanted <= monitored["Service/admin"]["metadata"]["labels"].items()
    assert not wanted <= monitored["Service"]["metadata"]["labels"].items(), "every pod would be scraped twice"
    test_pod = monitored["Pod"]["metadata"]["labels"].items()
    _, to_admin = monitored["NetworkPolicy"]["spec"]["ingress"]
    admitted = [peer["podSelector"]["matchLabels"].items() for peer in to_admin["from"] if "podSelector" in peer]
    assert any(labels <= test_pod for labels in admitted), "`helm test` would fail"
    job = monitored["Service/admin"]["metadata"]["name"]
    groups = monitored["PrometheusRule"]["spec"]["groups"]
    assert [rule["expr"] for rule in groups[0]["rules"] if rule.get("alert") == "AkoyaGatewayDown"] == [
        f'up{{job=~"{job}"}} == 0 or absent(up{{job=~"{job}"}})'
    ]
    shipped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text("utf-8"))["groups"]
    assert len(groups[0]["rules"]) == len(shipped[0]["rules"])
    assert [rule["ports"][0]["port"] for rule in monitored["NetworkPolicy"]["spec"]["ingress"]] == [8080, 9090]
    existing = rendered("existing-objects", base)
    assert not {"ConfigMap", "ServiceAccount"} & set(existing)
    volumes = {volume["name"]: volume for volume in pod("existing-objects", base)["volumes"]}
    assert volumes["configuration"]["configMap"] == {"name": "bank-gateway-config"}
    assert volumes["secrets"]["secret"]["secretName"] == "bank-gateway-secrets"
    assert pod("existing-objects", base)["serviceAccountName"] == "bank"
    image = pod("names-and-image", base)["containers"][0]["image"]
    assert image == "registry.example.com/akoya-gateway@sha256:" + "ab" * 32
    variables = pod("environment-variables", base)
    assert variables["containers"][0]["envFrom"] == [{"secretRef": {"name": "akoya"}}]
    assert "secrets" not in {volume["name"] for volume in variables["volumes"]}


def test_notes_warn_of_https_without_trusted_proxies(base: Path, tmp_path: Path) -> None:
    """`helm template` does not render notes, so a template of a copied chart renders their text."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | quote }}\n')

    def notes(*changes: str) -> str:
        done = helm("template", "bank", str(chart), "-s", "templates/notes.yaml", "--values", str(base), *changes)
        assert done.returncode == 0, done.stderr
        return str(yaml.safe_load(done.stdout)["notes"])

    assert "WARNING" not in notes()
    assert "config.trusted_proxies is not set" in notes("--set", "config.trusted_proxies=null")
    assert "WARNING" not in notes(
        "--set", "config.trusted_proxies=null", "--set", "config.public_url=http://localhost:8080"
    )
