"""`akoya-gateway check`, `schema`, `url`: output, streams and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest

from akoya_gateway.cli import COMMANDS
from tests.support.commands import run_command
from tests.support.config_documents import ENVIRON, validated


def _run(*arguments: str, folder: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_command(
        *arguments, folder=folder, environ={"COLUMNS": "200", **(ENVIRON if environ is None else environ)}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    validated(tmp_path, {})
    return tmp_path


def test_check_of_a_good_file_is_silent_on_standard_output(folder: Path) -> None:
    done = _run("check", folder=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "gateway.yaml: fine (1 warning)" in done.stderr
    assert "warning: gateway.yaml:" in done.stderr


def test_installed_program_prints_the_faults_and_exits_with_1(folder: Path) -> None:
    program = Path(sys.executable).with_name("akoya-gateway")
    done = subprocess.run(
        [program, "check"], cwd=folder, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "gateway.yaml:" in done.stdout) == (1, True), done


def test_check_prints_one_line_a_fault(folder: Path) -> None:
    shutil.copy(Path(__file__).with_name("ten_faults.yaml"), folder / "ten.yaml")
    done = _run("check", "-c", "ten.yaml", folder=folder, environ={**ENVIRON, "SHORT_SECRET": "short"})
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert len(lines) == 10
    assert lines[5] == (
        'ten.yaml:19:20: connectors.mikomo.client: no client named "demo-ap" (did you mean "demo-app"?)'
    )
    assert "ten.yaml: 10 faults" in done.stderr


def test_check_speaks_json(folder: Path) -> None:
    done = _run("check", "--format", "json", folder=folder, environ={})
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert not report["fine"]
    assert {fault["path"] for fault in report["faults"]} >= {"clients.demo-app.client_secret.env"}
    assert all(isinstance(fault["line"], int) for fault in report["faults"])


def test_check_without_secrets(folder: Path) -> None:
    assert _run("check", folder=folder, environ={}).returncode == 1
    assert _run("check", "--no-secrets", folder=folder, environ={}).returncode == 0


def test_wrong_usage_exits_with_2(folder: Path) -> None:
    assert _run("check", "--bogus", folder=folder).returncode == 2
    assert _run("bogus", folder=folder).returncode == 2
    assert _run("url", folder=folder).returncode == 2
    assert _run("check", "--format", "xml", folder=folder).returncode == 2


def test_missing_file_is_a_fault_not_a_traceback(tmp_path: Path) -> None:
    done = _run("check", folder=tmp_path)
    assert done.returncode == 1
    assert (
        done.stdout
        == "gateway.yaml:1:1: there is no such file (name one with --config, in Python with config=, or write one with `akoya-gateway init`)\n"
    )
    assert "Traceback" not in done.stderr


def test_schema_prints_the_schema(tmp_path: Path) -> None:
    done = _run("schema", folder=tmp_path)
    assert done.returncode == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))


def test_url_prints_what_akoya_documents(folder: Path) -> None:
    done = _run("url", "mikomo", folder=folder)
    assert done.returncode == 0
    url = done.stdout.strip()
    assert url.startswith("https://sandbox-idp.ddp.akoya.com/auth?")
    query = dict(parse_qsl(urlsplit(url).query))
    state = query.pop("state")
    assert query == {
        "connector": "mikomo",
        "client_id": "demo",
        "redirect_uri": "https://app.example.com/akoya/callback",
        "response_type": "code",
        "scope": "openid profile offline_access",
    }
    assert len(state) >= 22
    assert "the gateway will refuse its callback" in done.stderr
    assert "https://app.example.com/akoya/connect/mikomo" in done.stderr


def test_url_of_an_unknown_connector_names_the_nearest(folder: Path) -> None:
    done = _run("url", "mikmo", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'did you mean "mikomo"?' in done.stderr


def test_url_of_a_faulty_file_lists_the_faults(folder: Path) -> None:
    document = (folder / "gateway.yaml").read_text()
    (folder / "gateway.yaml").write_text(document.replace("akoya-sandbox", "akoya-sandbx"))
    done = _run("url", "mikomo", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "akoya-sandbx" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_command_in_order(tmp_path: Path) -> None:
    done = _run("--help", folder=tmp_path)
    assert done.returncode == 0
    places = [done.stdout.find(f" {name} ") for name in COMMANDS if f" {name} " in done.stdout]
    assert len(places) >= 3
    assert "Exit codes: 0 fine, 1 a fault was found, 2 wrong usage." in done.stdout


def test_help_has_the_whole_first_sentence_of_each_command(tmp_path: Path) -> None:
    for words in ([], ["keys"], ["grants"]):
        output = _run(*words, "--help", folder=tmp_path).stdout
        assert "..." not in output.partition("Commands:")[2]
    order = [output.index(f"\n  {name} ") for name in ("list", "count", "show", "revoke")]
    assert order == sorted(order)


def test_mistyped_command_is_wrong_usage_and_the_nearest_is_named(tmp_path: Path) -> None:
    done = _run("chek", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert """No such command 'chek' (did you mean "check"?)""" in done.stderr
    assert "No such command 'zzz'." in _run("zzz", folder=tmp_path).stderr


def test_help_loads_no_parser_and_no_server() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from akoya_gateway.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "assert not {'yaml', 'jsonschema', 'uvicorn', 'httpx', 'cryptography'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
