"""`akoya-gateway explain`: what would happen to a request, shown without access to any secret."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from akoya_gateway.gateway.explain import Explainer
from tests.support.commands import run_command
from tests.support.config_documents import error_lines, validated

DESIGN = Path(__file__).parents[1] / "config" / "design.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(DESIGN, tmp_path / "gateway.yaml")
    return tmp_path


def explain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `explain` without the environment variables that the file names."""
    return run_command("explain", *words, folder=folder)


def test_browser_and_a_program_without_a_bank_and_what_the_upstream_would_get(folder: Path) -> None:
    done = explain(folder, "get", "/accounts")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rule = next(n for n, text in enumerate(DESIGN.read_text().splitlines(), 1) if "path: /*," in text)
    assert lines[:6] == [
        "GET /accounts",
        f"  rule         access[2] /*   (gateway.yaml:{rule})",
        "  requires     at least one live grant",
        "  without it   a browser is redirected to /akoya/connect/mikomo?return_to=/accounts (302)",
        "  without it   anything else gets 401 not-connected",
        "  with it      it goes to the upstream",
    ]
    headers = dict(line.strip().split(": ", 1) for line in lines[6:])
    assert headers["Akoya-Connector"] == "mikomo"
    assert headers["Akoya-Id-Token"] == "<id_token>"
    assert headers["Akoya-Provider"] == "mikomo"
    assert headers["Akoya-Interaction-Type"] == "user"
    assert headers["Akoya-Grant"].startswith("g_")
    assert headers["Akoya-Last-Access"].endswith("Z")
    assert headers["Signature"] == "akoya=:<signature>:"
    assert 'keyid="<key id>";alg="hmac-sha256"' in headers["Signature-Input"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("GET", "/static/app.css"), "requires     nothing"),
        (("GET", "/api/banks/mikomo/accounts"), "requires     a live grant of the connector in {connector}"),
        (("GET", "/api/banks/mikomo/accounts"), "without it   anything else gets 401 not-connected"),
        (("GET", "/a//b"), "refused      400: The path contains an empty segment."),
        (("GET", "/akoya/connect/mikomo"), "route        the gateway's own: starts an authorization attempt"),
    ],
)
def test_each_kind_of_request(folder: Path, words: tuple[str, str], expected: str) -> None:
    assert expected in explain(folder, *words).stdout


def test_login_that_the_path_chooses_is_read_as_in_a_request(tmp_path: Path) -> None:
    rules = [
        {"path": "/query", "require": "mikomo", "grant": {"query": "login"}},
        {"path": "/path/{login}/x", "require": "mikomo", "grant": {"path": "login"}},
    ]
    result = validated(tmp_path, {"access": rules})
    assert result.config is not None, error_lines(result)
    explainer = Explainer(result.config, ("mikomo",), 1_800_000_000.0)
    own = "g_AAAAAAAAAAAAAAAAAAAAAA"
    for target in (f"/query?a=1&lo%67in={own}", f"/path/{own}/x"):
        found = explainer.explain("GET", target)
        assert found.with_grants == (
            "it goes to the upstream, if that is one of the user's own logins there; any other ID gets 404 unknown-grant"
        )
        headers = dict(found.headers)
        assert headers["akoya-grant"] == own
        assert f'id="{own}"' in headers["akoya-connections"]
    for target in ("/query?login=mine", "/path/mine/x"):
        assert explainer.explain("GET", target).with_grants == "anything else gets 404 unknown-grant"
    for query in ("login=", f"login={own}&login={own}", "login=" + "x" * 65):
        refusal = explainer.explain("GET", f"/query?{query}").refusal
        assert refusal == "400: Name one grant, by its ID of at most 64 characters."
    for target in ("/query", "/query?LOGIN=x"):
        assert explainer.explain("GET", target).with_grants == "it goes to the upstream"


def test_request_that_no_rule_allows(folder: Path) -> None:
    file = folder / "gateway.yaml"
    file.write_text(file.read_text().replace("{path: /*, require: any", "{path: /accounts, require: any"))
    assert "rule         none matches: 403." in explain(folder, "GET", "/elsewhere").stdout


def test_connected_bank_of_the_user_is_chosen(folder: Path) -> None:
    done = explain(folder, "GET", "/accounts", "--connected", "nobank")
    assert (done.returncode, done.stderr) == (2, "no connector named 'nobank'; known: mikomo\n")


def test_for_machines(folder: Path) -> None:
    explanation = json.loads(explain(folder, "GET", "/accounts", "--format", "json").stdout)
    assert explanation["rule"]["label"] == "access[2] /*"
    assert explanation["headers"]["akoya-id-token"] == "<id_token>"


def test_explain_names_the_upstream_of_a_request(folder: Path) -> None:
    file = folder / "gateway.yaml"
    reports = "upstreams: {reports: {url: [http://127.0.0.1:4000, http://127.0.0.1:4001]}}\n"
    rule = "{path: /r/*, require: any, upstream: reports}"
    file.write_text(reports + file.read_text().replace("{path: /static/*, require: nothing}", rule))
    done = explain(folder, "GET", "/r/x")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "  with it      it goes to the upstream reports (http://127.0.0.1:4000, http://127.0.0.1:4001)\n" in done.stdout
    )
    for path, place in (("/r/x", "upstreams.reports"), ("/accounts", "upstream")):
        assert json.loads(explain(folder, "GET", path, "--format", "json").stdout)["rule"]["upstream"] == place


def test_explain_names_the_data_api_of_a_request_and_shows_no_headers(folder: Path) -> None:
    file = folder / "gateway.yaml"
    rule = '{path: "/b/{connector}/*", require: "{connector}", upstream: bank-data}'
    text = file.read_text().replace("{path: /static/*, require: nothing}", rule)
    file.write_text("upstreams: {bank-data: {data_api: sandbox}}\n" + text)
    done = explain(folder, "GET", "/b/mikomo/balances")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "  with it      the gateway calls https://sandbox-products.ddp.akoya.com/balances/v3/mikomo (bank-data); "
        "no app gets the request or the token"
    )
    document = json.loads(explain(folder, "GET", "/b/mikomo/balances", "--format", "json").stdout)
    assert (document["rule"]["upstream"], document["headers"]) == ("upstreams.bank-data", {})
    for method, path, refused in (
        ("GET", "/b/mikomo/nothing", "404 unknown-product"),
        ("POST", "/b/mikomo/balances", "405 method-not-allowed"),
    ):
        last = explain(folder, method, path).stdout.splitlines()[-1]
        assert last == f"  with it      it gets {refused}, without a call to bank-data"


def test_faulty_file_is_not_explained(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("version: 1\nupstreem: {}\n")
    done = explain(folder, "GET", "/")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'gateway.yaml:2:1: upstreem: unknown key "upstreem" (did you mean "upstream"?)' in done.stderr
