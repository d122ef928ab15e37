"""`akoya-gateway doctor`"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from akoya_gateway.cli.options import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from akoya_gateway.operations.finding import Finding


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: Annotated[
        bool,
        typer.Option(
            "--credentials/--no-credentials",
            help="Try each client's secret at its token endpoint, with a code that cannot exist.",
        ),
    ] = True,
    output: Annotated[Format, typer.Option("--format", help="A table for people, or one JSON object.")] = Format.TABLE,
) -> None:
    """Examine a live configuration: DNS, TLS, clocks, endpoints, credentials, redirect URI, store, upstream.

    Everything the configuration names is asked once; nothing is changed, and no secret is printed. Run it where the
    gateway runs, as the user it runs as.

    Exit codes: 0 no fault (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    import asyncio  # noqa: PLC0415

    from akoya_gateway.config.load import load_config  # noqa: PLC0415
    from akoya_gateway.operations.doctor import examine  # noqa: PLC0415
    from akoya_gateway.upstream.tls import client_context  # noqa: PLC0415

    loaded = load_config(config)
    try:
        tls = client_context(loaded.upstream.tls) if loaded.upstream is not None else None
    except OSError as error:
        typer.echo(f"upstream.tls: the files cannot be used: {error}", err=True)
        raise typer.Exit(1) from None
    findings = asyncio.run(examine(loaded, upstream_tls=tls, credentials=credentials))
    faults = sum(finding.verdict == "fault" for finding in findings)
    if output is Format.JSON:
        typer.echo(json.dumps({"fine": not faults, "findings": [_fields(each) for each in findings]}, indent=2))
    else:
        _print(findings, faults)
    if faults:
        raise typer.Exit(1)


def _print(findings: list[Finding], faults: int) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    colours = {"fine": "green", "warning": "yellow", "fault": "red"}
    table = Table("", "what", "seen", box=None, pad_edge=False)
    for each in findings:
        took = f" ({each.milliseconds:g} ms)" if each.milliseconds is not None else ""
        # Text, not markup: an answer may hold brackets.
        seen = Text(each.says + took + (f"\n{each.remedy}" if each.remedy else ""))
        table.add_row(Text(each.verdict.value, style=colours[each.verdict.value]), Text(each.about), seen)
    console = Console()
    console.print(table)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    console.print(f"{faults} fault(s), {warnings} warning(s)", style="bold red" if faults else "bold green")


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "about": finding.about,
        "verdict": finding.verdict.value,
        "says": finding.says,
        "remedy": finding.remedy,
        "milliseconds": finding.milliseconds,
    }
