"""The command `akoya-gateway check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from akoya_gateway.cli.options import config_option, format_option

if TYPE_CHECKING:
    from akoya_gateway.config.diagnostics import Diagnostic
    from akoya_gateway.config.loader import ValidationResult


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="[FILE]", required=False)
@config_option
@click.option("--no-secrets", is_flag=True, help="Do not read secrets, to check a file where they are not available.")
@format_option("Text for people and editors, or one JSON object.")
@click.pass_context
def check(ctx: click.Context, file: Path | None, config: Path, no_secrets: bool, form: str) -> None:
    """Find everything that is wrong with a configuration, without starting anything.

    Checks FILE, or what --config names. Prints one line for each fault to standard output, as compilers do:
    `file:line:column: path: what is wrong (what to do)`. Warnings and the summary go to standard error. No other system
    is contacted: use `doctor` for that.

    Exit codes: 0 fine (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    from akoya_gateway.config.loader import validate_config  # noqa: PLC0415
    from akoya_gateway.config.reader import ALL_SECRETS, NO_SECRETS  # noqa: PLC0415

    if file is not None:
        if ctx.get_parameter_source("config") is ParameterSource.COMMANDLINE:
            raise click.UsageError("name the file once: as FILE or with --config")
        config = file
    result = validate_config(config, secrets=NO_SECRETS if no_secrets else ALL_SECRETS)
    if form == "json":
        click.echo(json.dumps(_report(result), indent=2))
    else:
        _print(result, str(config), secrets=not no_secrets)
    if result.diagnostics:
        raise SystemExit(1)


def _print(result: ValidationResult, name: str, *, secrets: bool) -> None:
    for diagnostic in result.diagnostics:
        click.echo(str(diagnostic))
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if result.diagnostics:
        click.echo(f"{name}: {_count(len(result.diagnostics), 'fault')}", err=True)
    else:
        left_out = "" if secrets else ", secrets not read"
        click.echo(f"{name}: fine ({_count(len(result.warnings), 'warning')}{left_out})", err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _report(result: ValidationResult) -> dict[str, Any]:
    return {
        "fine": not result.diagnostics,
        "faults": [_fields(diagnostic) for diagnostic in result.diagnostics],
        "warnings": [_fields(warning) for warning in result.warnings],
    }


def _fields(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "path": diagnostic.location,
        "message": diagnostic.message,
        "remedy": diagnostic.remedy,
    }
