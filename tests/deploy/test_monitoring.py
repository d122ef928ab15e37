"""The alert rules and the dashboard: promtool's own tests, and incidents at a real gateway with a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from akoya_gateway.entrypoints.known_series import ATTEMPT_RESULTS, FAILURES
from tests.deploy.alerts_table import table
from tests.support.environment import Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess
from tests.support.redis_servers import RedisServer
from tests.support.shutdown import ending
from tests.support.sidecar import Running
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


@needs_prometheus
def test_rules_pass_their_own_tests() -> None:
    done = subprocess.run(["promtool", "test", "rules", "rules_test.yaml"], cwd=RULES.parent, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_rule_has_a_test_and_an_action() -> None:
    rules = [rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"] if "alert" in rule]
    tested = set(re.findall(r"alertname: (\w+)", (RULES.parent / "rules_test.yaml").read_text()))
    assert {rule["alert"] for rule in rules} == tested
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == [rule["alert"] for rule in rules]
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_table_of_alerts_in_the_docs_is_that_of_the_rules() -> None:
    """Made by: python -m tests.deploy.alerts_table"""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert table(RULES) in page


def test_labels_that_exist_from_the_start_are_codes_that_the_docs_explain() -> None:
    explained = set(re.findall(r"`([a-z_-]+)`", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")))
    assert {*ATTEMPT_RESULTS, *FAILURES} - {"granted"} <= explained


EVENTS = {
    "AkoyaBankFailing": 'akoya_gateway_attempts_finished_total{result="temporarily_unavailable"} > 0',
    "AkoyaClientRejected": 'akoya_gateway_refreshes_total{outcome="client-rejected"} > 0',
    "AkoyaProviderDown": "akoya_gateway_provider_breaker_open == 1",
    "AkoyaReloadFailed": "akoya_gateway_config_last_reload_successful == 0",
    "AkoyaStoreFailing": "akoya_gateway_store_errors_total > 0",
}
"""What the first scrape after each incident shows."""


def drilled(rules: str) -> str:
    """Return a rules file that also records each evaluation, and at which of them the event of an alert was visible.

    Rules of a group are evaluated in order at one time, so an alert sees at least what the recording rules before it saw.
    """
    document = yaml.safe_load(rules)
    records: list[dict[str, Any]] = [{"record": "drill_evaluation", "expr": "vector(1)"}]
    for alert, event in EVENTS.items():
        records.append({"record": "drill_event", "expr": f"count by (instance) ({event})", "labels": {"alert": alert}})
    document["groups"][0]["rules"][:0] = records
    return yaml.safe_dump(document, sort_keys=False)


class Prometheus:
    """A Prometheus that scrapes gateways and evaluates our rules, with short intervals."""

    def __init__(self, folder: Path, *targets: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._targets = len(targets)
        (folder / "rules.yaml").write_text(drilled(RULES.read_text()))
        job = {"job_name": "akoya-gateway", "static_configs": [{"targets": list(targets)}]}
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                    "rule_files": ["rules.yaml"],
                    "scrape_configs": [job],
                }
            )
        )

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                "prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
            ]
        )  # fmt: skip

    def _get(self, path: str, **parameters: str) -> Any:
        response = httpx.get(
            f"http://127.0.0.1:{self.port}/api/v1/{path}", params=parameters, trust_env=False, timeout=10
        )
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self._get("query", query=expression)["result"]
        return found

    def is_ready(self) -> bool:
        """Return whether it has scraped the gateway."""
        try:
            ready = httpx.get(f"http://127.0.0.1:{self.port}/-/ready", trust_env=False, timeout=60).status_code == 200
        except httpx.TransportError:
            return False
        return ready and int(self.query("count(akoya_gateway_build_info) or vector(0)")[0]["value"][1]) == self._targets

    def scrapes(self) -> int:
        """Return the number of scrapes of each gateway so far."""
        return int(self.query("min(count_over_time(up[1h]))")[0]["value"][1])

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self._get("alerts")["alerts"] if one["state"] == "firing"}

    def times(self, selector: str) -> list[float]:
        """Return the times of all samples of the selected series so far, in order."""
        return sorted(float(at) for series in self.query(f"{selector}[1h]") for at, _ in series["values"])

    def evaluations_until(self, alert: str, gateway: str) -> int | None:
        """Return at which evaluation an alert fired for the first time, or None if it has not.

        1 is the first evaluation in which the event at this gateway was recorded, and 0 an earlier one: an alert may see
        a scrape that was stored after its event was looked for, in the same evaluation.
        """
        instance = gateway.removeprefix("http://")
        # Alerts of all replicas together have no `instance`.
        fired = self.times(f'ALERTS{{alertname="{alert}",alertstate="firing",instance=~"|{instance}"}}')
        seen = self.times(f'drill_event{{alert="{alert}",instance="{instance}"}}')
        if not fired or not seen:
            return None
        return len([at for at in self.times("drill_evaluation") if seen[0] <= at <= fired[0]])


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def env(store: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    sessions = {"store": f"{store.url}?timeout=1", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes={"sessions": sessions}) as env:
        yield env


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with an SQLite store and its log in files."""
    with Running(tmp_path_factory.mktemp("on_disk")) as run:
        yield run


@pytest.fixture(scope="module")
def prometheus(env: GatewayEnv, on_disk: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = [url.removeprefix("http://") for url in (env.admin_url, on_disk.admin)]
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), *targets)
    with ending(prometheus.start()):
        until(prometheus.is_ready, "the first scrape", within=60)
        yield prometheus


@needs_prometheus
def test_queries_of_the_dashboard_find_series_before_anything_has_happened(prometheus: Prometheus) -> None:
    """Each series exists from the start, once the grants are counted. Some queries show only what is above 0."""
    # Rates need two scrapes, and the first count of the grants comes after ten seconds.
    until(lambda: prometheus.scrapes() >= 3, "three scrapes", within=60)
    counted = "count(akoya_gateway_grants_counted_timestamp_seconds) == 2"
    until(lambda: prometheus.query(counted), "both gateways have counted their grants", within=60)
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 20
    for expression in expressions:
        found = prometheus.query(expression.replace('"$job"', '"akoya-gateway"'))
        assert found or expression.endswith("> 0") or "histogram_quantile" in expression, expression


def expect(prometheus: Prometheus, alert: str, action: str, gateway: str) -> None:
    """Wait until an alert has fired. It must be firing at the second evaluation after a scrape has shown its event.

    Prometheus' own samples are compared, because evaluations are late on a busy machine.
    """
    until(lambda: prometheus.evaluations_until(alert, gateway) is not None, alert, within=60)
    assert prometheus.evaluations_until(alert, gateway) in {0, 1, 2}
    rules = {rule.get("alert"): rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
    assert action in rules[alert]["annotations"]["action"]


@needs_prometheus
def test_full_disk_fires_an_alert_and_readyz_names_the_disk(prometheus: Prometheus, on_disk: Running) -> None:
    """Neither the database nor the log can grow. Requests that write nothing are still served."""

    def limit_files(size: int) -> None:
        resource.prlimit(on_disk.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def connect() -> int:
        return on_disk.get("/akoya/connect/mikomo", headers=Browser.NAVIGATION).status_code

    assert connect() == 302
    limit_files(0)
    until(lambda: connect() == 503, "an attempt cannot be stored")
    expect(prometheus, "AkoyaStoreFailing", "`/readyz`, which names what is wrong", on_disk.admin)
    until(lambda: on_disk.fetch_admin("/readyz").status_code == 503, "it is not ready")
    assert "disk" in on_disk.fetch_admin("/readyz").json()["problems"][0]
    assert on_disk.get("/public/x").text == "done"
    limit_files(resource.RLIM_INFINITY)
    until(lambda: connect() == 302 and on_disk.fetch_admin("/readyz").status_code == 200, "it works again")


@needs_prometheus
def test_each_incident_fires_its_alert_and_names_what_to_do(
    prometheus: Prometheus, env: GatewayEnv, store: RedisServer
) -> None:
    """The secret reset at Akoya, a key removed from the configuration, a bank down, Akoya down, the store gone."""

    def refreshed(browser: Browser, outcome: str) -> bool:
        browser.fetch("/accounts/stale")
        metric = f'akoya_gateway_refreshes_total{{connector="mikomo",environment="double",outcome="{outcome}"}} '
        text = httpx.get(f"{env.admin_url}/metrics", trust_env=False, timeout=60).text
        return any(line.startswith(metric) and not line.endswith(" 0.0") for line in text.splitlines())

    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(env.browser()) for _ in range(6)]
        for browser in browsers:
            browser.connect()
        assert not {"AkoyaClientRejected", "AkoyaReloadFailed", "AkoyaBankFailing"} & prometheus.firing()

        env.akoya.rotate_secret("another-secret-than-the-gateway-has")
        until(lambda: refreshed(browsers[0], "client-rejected"), "a rejected refresh", within=60)
        expect(prometheus, "AkoyaClientRejected", "Compare client_id and client_secret", env.admin_url)
        env.akoya.rotate_secret(env.environ["AKOYA_CLIENT_SECRET"])

        gateway = env.gateway
        assert isinstance(gateway, GatewayProcess) and gateway.process is not None
        config = yaml.safe_load(gateway.config_path.read_text())
        faulty = {**config, "sessions": {**config["sessions"], "keys": [{"env": "REMOVED"}]}}
        gateway.config_path.write_text(yaml.safe_dump(faulty))
        gateway.process.send_signal(signal.SIGHUP)
        expect(prometheus, "AkoyaReloadFailed", "akoya-gateway check", env.admin_url)
        gateway.config_path.write_text(yaml.safe_dump(config))
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: "AkoyaReloadFailed" not in prometheus.firing(), "a reload that succeeds", within=60)

        env.akoya.fault("callback_error", "consent", error="temporarily_unavailable", times=1)
        browsers[0].connect("other")
        expect(prometheus, "AkoyaBankFailing", "Akoya's status page", env.admin_url)

        env.akoya.stop()
        # Each user's request makes the gateway refresh one more token, until the circuit breaker opens.
        for browser in browsers:
            browser.fetch("/accounts/stale")
        expect(prometheus, "AkoyaProviderDown", "akoya-gateway doctor", env.admin_url)

        store.kill()
        until(lambda: browsers[0].fetch("/accounts").status_code == 503, "a failed request", within=60)
        expect(prometheus, "AkoyaStoreFailing", "/readyz", env.admin_url)
