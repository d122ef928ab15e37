"""`akoya-gateway check`"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from akoya_gateway.cli.options import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from akoya_gateway.config.faults import Fault
    from akoya_gateway.config.load import Judgement


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    no_secrets: Annotated[
        bool, typer.Option("--no-secrets", help="Do not read secrets: check a file where they are not at hand.")
    ] = False,
    output: Annotated[Format, typer.Option("--format", help="Lines for people and editors, or one JSON object.")] = (
        Format.TEXT
    ),
) -> None:
    """Find everything that is wrong with a configuration, without starting anything.

    Prints one line a fault to standard output, `file:line:column: path: what is wrong (what to do)`, as compilers do.
    Warnings and the summary go to standard error. Nothing is contacted: see `doctor` for that.

    Exit codes: 0 fine (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    from akoya_gateway.config.load import judge_config  # noqa: PLC0415

    judgement = judge_config(config, secrets=not no_secrets)
    if output is Format.JSON:
        typer.echo(json.dumps(_report(judgement), indent=2))
    else:
        _print(judgement, str(config), secrets=not no_secrets)
    if judgement.faults:
        raise typer.Exit(1)


def _print(judgement: Judgement, name: str, *, secrets: bool) -> None:
    for fault in judgement.faults:
        typer.echo(str(fault))
    for warning in judgement.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if judgement.faults:
        typer.echo(f"{name}: {_count(len(judgement.faults), 'fault')}", err=True)
    else:
        left_out = "" if secrets else ", secrets not read"
        typer.echo(f"{name}: fine ({_count(len(judgement.warnings), 'warning')}{left_out})", err=True)


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
