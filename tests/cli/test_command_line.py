"""What all commands share: help, the configuration's name, colours, closed pipes and completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from akoya_gateway.cli import COMMANDS, app
from tests.support.config_documents import ENVIRON, validated

GATEWAY = str(Path(sys.executable).with_name("akoya-gateway"))
BROKEN = "version: 1\nconnectors: {mikomo: {client: a, name: Mikomo Bank}, mine: {client: a}, alpine: {client: a}}\n"


def every_command(group: click.Group = app, names: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        path = (*names, name)
        found += [(path, command), *(every_command(command, path) if isinstance(command, click.Group) else ())]
    return found


def test_every_command_shows_the_same_help_for_both_options() -> None:
    assert {path[0] for path, _ in every_command()} == set(COMMANDS)
    for path, _ in [((), app), *every_command()]:
        short, long = (CliRunner().invoke(app, [*path, option]) for option in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output)


def test_every_output_for_programs_is_an_option_format_with_text_and_json() -> None:
    formats = {}
    for path, command in every_command():
        for option in command.params:
            assert "--json" not in option.opts
            if "--format" in option.opts:
                assert isinstance(option.type, click.Choice)
                formats[path] = tuple(option.type.choices), option.default, "-f" in option.opts
    assert set(formats.values()) == {
        (("text", "json"), "text", True),
        (("text", "json", "csv"), "text", True),
    }
    assert len(formats) == 6


def test_environment_names_the_configuration_for_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated(tmp_path, {})
    (tmp_path / "gateway.yaml").rename(tmp_path / "other.yaml")
    named = {"AKOYA_GATEWAY_CONFIG": "other.yaml"}
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={**ENVIRON, **named})
    for arguments in (["check"], ["url", "mikomo"], ["explain", "GET", "/"]):
        assert runner.invoke(app, arguments).exit_code == 0
    assert CliRunner(env=ENVIRON).invoke(app, ["check"]).exit_code == 1
    assert runner.invoke(app, ["check", "--config", "absent.yaml"]).exit_code == 1, "an option takes precedence"
    for path, command in every_command():
        for option in command.params:
            if "--config" in option.opts:
                assert option.envvar == "AKOYA_GATEWAY_CONFIG", path


def test_check_takes_the_file_as_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated(tmp_path, {})
    (tmp_path / "gateway.yaml").rename(tmp_path / "other.yaml")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={**ENVIRON, "AKOYA_GATEWAY_CONFIG": "absent.yaml"})
    assert "other.yaml: fine" in runner.invoke(app, ["check", "other.yaml"]).stderr
    twice = runner.invoke(app, ["check", "other.yaml", "--config", "other.yaml"])
    assert twice.exit_code == 2
    assert "name the file once" in twice.stderr


def test_output_into_a_closed_pipe_ends_without_a_message_and_not_as_a_fault(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([GATEWAY, "schema"], stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_colours_are_off_if_unwanted(tmp_path: Path) -> None:
    nowhere = {"issuer": "http://127.0.0.1:1", "authorization_endpoint": "http://127.0.0.1:1/a",
               "token_endpoint": "http://127.0.0.1:1/t"}  # fmt: skip
    validated(
        tmp_path,
        {
            "upstream.url": "http://127.0.0.1:1",
            "environments": {"sandbox": nowhere},
            "sessions.store": "memory://",
        },
    )
    command = ["doctor", "--no-credentials", "--config", str(tmp_path / "gateway.yaml")]
    for wish in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        env = {**ENVIRON, "NO_COLOR": "", "TERM": "xterm", **wish}
        printed = CliRunner(env=env).invoke(app, command, color=True).stdout
        assert "fault" in printed
        assert ("\x1b[" in printed) is (not wish), wish


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("url m", {"mikomo", "mine"}),
        ("url ", {"mikomo", "mine", "alpine"}),
        ("explain GET / --connected a", {"alpine"}),
        ("grants list --connector mik", {"mikomo"}),
        ("url --config absent.yaml m", set()),
        ("keys ro", {"rotate", "rotate-store"}),
    ],
)
def test_completion_offers_the_connectors_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, offered: set[str]
) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    typed = f"akoya-gateway {words}"
    shell = {
        "_AKOYA_GATEWAY_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
        "AKOYA_GATEWAY_CONFIG": "broken.yaml",
    }
    monkeypatch.chdir(tmp_path)
    printed = CliRunner(env=shell).invoke(app, prog_name="akoya-gateway").stdout
    assert {line.partition(",")[2] for line in printed.split()} == offered


def test_completion_scripts_are_printed_as_the_help_describes() -> None:
    assert "_AKOYA_GATEWAY_COMPLETE=bash_source" in CliRunner().invoke(app, ["--help"]).stdout
    for shell in ("zsh", "fish"):  # click starts bash to learn its version.
        env = {"_AKOYA_GATEWAY_COMPLETE": f"{shell}_source"}
        assert "_AKOYA_GATEWAY_COMPLETE" in CliRunner(env=env).invoke(app, prog_name="akoya-gateway").stdout


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_manual_page_has_every_command_and_option_and_man_accepts_it(tmp_path: Path) -> None:
    page = tmp_path / "akoya-gateway.1"
    page.write_text(CliRunner().invoke(app, ["man"]).stdout)
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": ""}
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(page)], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stderr == ""
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", shown.stdout)
    for path, found in every_command():
        assert f"\n   {' '.join(path)} " in text
        for option in found.params:
            assert all(name in text for name in option.opts if isinstance(option, click.Option))
    assert "akoya-gateway - A gateway between the Akoya network and your app" in text
