"""`akoya-gateway check`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from akoya_gateway.cli.options import config_option

if TYPE_CHECKING:
    from akoya_gateway.config.diagnostics import Fault
    from akoya_gateway.config.loader import Judgement


@click.command()
@config_option
@click.option("--no-secrets", is_flag=True, help="Do not read secrets: check a file where they are not at hand.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people and editors, or one JSON object.",
)
def check(config: Path, no_secrets: bool, form: str) -> None:
    """Find everything that is wrong with a configuration, without starting anything.

    Prints one line a fault to standard output, `file:line:column: path: what is wrong (what to do)`, as compilers do.
    Warnings and the summary go to standard error. Nothing is contacted: see `doctor` for that.

    Exit codes: 0 fine (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    from akoya_gateway.config.loader import judge_config  # noqa: PLC0415

    judgement = judge_config(config, secrets=not no_secrets)
    if form == "json":
        click.echo(json.dumps(_report(judgement), indent=2))
    else:
        _print(judgement, str(config), secrets=not no_secrets)
    if judgement.faults:
        raise SystemExit(1)


def _print(judgement: Judgement, name: str, *, secrets: bool) -> None:
    for fault in judgement.faults:
        click.echo(str(fault))
    for warning in judgement.warnings:
        click.echo(f"warning: {warning}", err=True)
    if judgement.faults:
        click.echo(f"{name}: {_count(len(judgement.faults), 'fault')}", err=True)
    else:
        left_out = "" if secrets else ", secrets not read"
        click.echo(f"{name}: fine ({_count(len(judgement.warnings), 'warning')}{left_out})", err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _report(judgement: Judgement) -> dict[str, Any]:
    return {
        "fine": not judgement.faults,
        "faults": [_fields(fault) for fault in judgement.faults],
        "warnings": [_fields(warning) for warning in judgement.warnings],
    }


def _fields(fault: Fault) -> dict[str, Any]:
    return {
        "file": fault.file,
        "line": fault.line,
        "column": fault.column,
        "path": fault.where,
        "message": fault.message,
        "remedy": fault.remedy,
    }
