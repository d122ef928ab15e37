"""`akoya-gateway init`: what it writes passes `check`, serves requests, and keeps secrets and existing files."""

from __future__ import annotations

import itertools
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from akoya_gateway.cli import app
from akoya_gateway.cli import init as command
from akoya_gateway.config.loader import ValidationResult, validate_config

FILES = {".env", "gateway.schema.json", "gateway.yaml", "signing-key.pem", "store.key"}
PRODUCTION = [
    "--public-url",
    "https://app.example.com",
    "--connector",
    "FirstBank-1=First Bank: Main",
    "--connector",
    "b",
]


def init(folder: Path, *options: str, answers: str = "", **environ: str) -> Result:
    return CliRunner(env=environ).invoke(app, ["init", str(folder), *options], input=answers)


def variables(folder: Path) -> dict[str, str]:
    """Load .env as its first line says, in a shell."""
    script = f"set -a; . {shlex.quote(str(folder))}/.env; set +a; env -0"
    done = subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    return dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry.startswith("AKOYA"))


def checked(folder: Path) -> ValidationResult:
    return validate_config(folder / "gateway.yaml", variables(folder))


@pytest.mark.parametrize(
    ("environment", "mode", "store"),
    list(itertools.product(("emulator", "sandbox", "production"), ("sidecar", "middleware"), ("sqlite", "redis"))),
)
def test_written_configuration_passes_check(tmp_path: Path, environment: str, mode: str, store: str) -> None:
    folder = tmp_path / "new"
    more = PRODUCTION if environment == "production" else []
    options = ["--environment", environment, "--mode", mode, "--store", store, "--client-id", "id", *more]
    result = init(folder, *options, AKOYA_CLIENT_SECRET="it's a $ecret~")
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == FILES
    checks = checked(folder)
    assert checks.diagnostics == ()
    assert checks.config is not None
    assert checks.config.clients["app"].client_secret.reveal() == "it's a $ecret~"
    assert (checks.config.upstream is None) is (mode == "middleware")
    assert checks.config.environments[environment].production is (environment == "production")
    assert checks.config.sessions.store.startswith(store)
    assert not [each for each in checks.warnings if "TLS" in each.message]
    banks = {"firstbank-1": "First Bank: Main", "b": "b"} if environment == "production" else {"mikomo": "Mikomo Bank"}
    assert {name: each.name for name, each in checks.config.connectors.items()} == banks
    if environment == "production":
        assert checks.config.connectors["firstbank-1"].id == "FirstBank-1"


def test_files_with_secrets_are_for_their_owner_alone_and_secrets_are_nowhere_else(tmp_path: Path) -> None:
    result = init(
        tmp_path,
        AKOYA_CLIENT_SECRET="a-secret-of-the-app",
    )
    secret = {".env", "signing-key.pem", "store.key"}
    assert {path.name for path in tmp_path.iterdir() if stat.S_IMODE(path.stat().st_mode) == 0o600} == secret
    assert "a-secret-of-the-app" not in result.output + (tmp_path / "gateway.yaml").read_text()


def test_init_without_credentials_names_what_to_fill_in(tmp_path: Path) -> None:
    result = init(tmp_path, "--environment", "sandbox")
    assert result.exit_code == 0
    assert "AKOYA_CLIENT_ID and AKOYA_CLIENT_SECRET" in result.stderr
    assert [each.location for each in checked(tmp_path).diagnostics] == [
        "clients.app.client_id.env",
        "clients.app.client_secret.env",
    ]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ([], ["akoya-gateway sandbox         # in another terminal", "akoya-gateway run"]),
        (
            ["--public-url", "http://localhost:8888", "--connector", "mikomo", "--connector", "Alpine=Alpine Savings"],
            [
                "akoya-gateway sandbox --redirect-uri http://localhost:8888/akoya/callback "
                "--connector 'Alpine=Alpine Savings' # in another terminal",
                "akoya-gateway run",
            ],
        ),
        (
            ["--mode", "middleware"],
            [
                "akoya-gateway sandbox         # in another terminal",
                'start the app, wrapped in Gateway(app, "gateway.yaml"), for requests to http://localhost:8080',
            ],
        ),
    ],
)
def test_init_for_the_emulator_prints_how_to_start_everything(
    tmp_path: Path, options: list[str], steps: list[str]
) -> None:
    result = init(tmp_path, "--environment", "emulator", *options)
    printed = [line.strip() for line in result.stderr.splitlines()]
    place = printed.index("akoya-gateway check") + 1
    assert printed[place : place + 2] == steps


def test_it_overwrites_nothing_without_force_and_keys_never(tmp_path: Path) -> None:
    assert init(tmp_path, "--environment", "emulator").exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = init(tmp_path, "--environment", "sandbox", "--client-id", "id")
    assert again.exit_code == 1
    assert all(name in again.stderr for name in FILES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert init(tmp_path, "--environment", "sandbox", "--client-id", "id", "--force").exit_code == 0
    changed = {path.name for path in tmp_path.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {".env", "gateway.yaml"}


def test_init_on_a_terminal_prompts_for_missing_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    answers = "production\nsidecar\nhttps://app.example.com/\nhttp://127.0.0.1:5000\nfirst second\nredis\nthe-id\nthe-secret\n"
    result = init(tmp_path, answers=answers)
    assert result.exit_code == 0, result.output
    assert "the-secret" not in result.output
    config = checked(tmp_path).config
    assert config is not None
    assert list(config.connectors) == ["first", "second"]
    assert str(config.upstream.origins[0]) == "http://127.0.0.1:5000"  # type: ignore[union-attr]
    assert config.clients["app"].client_id == "the-id"
    assert config.clients["app"].redirect_uri == "https://app.example.com/akoya/callback"


@pytest.mark.parametrize(
    "options",
    [
        ["--environment", "production"],
        ["--environment", "production", "--public-url", "https://app.example.com"],
        ["--public-url", "http://app.example.com"],
        ["--public-url", "https://app.example.com/app"],
        ["--connector", "=x"],
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(tmp_path: Path, options: list[str]) -> None:
    assert init(tmp_path / "new", *options).exit_code == 2
    assert not (tmp_path / "new").exists()


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = init(tmp_path / "file" / "below")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
