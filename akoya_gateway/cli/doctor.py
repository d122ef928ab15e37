"""`akoya-gateway doctor`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from akoya_gateway.cli.options import config_option
from akoya_gateway.cli.table import GAP

if TYPE_CHECKING:
    from akoya_gateway.doctor.check_result import Finding


@click.command()
@config_option
@click.option(
    "--credentials/--no-credentials",
    default=True,
    show_default=True,
    help="Try each client's secret at its token endpoint, with a code that cannot exist.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object.",
)
def doctor(config: Path, credentials: bool, form: str) -> None:
    """Examine a live configuration: DNS, TLS, clocks, endpoints, credentials, redirect URI, store, upstreams.

    Everything the configuration names is asked once; nothing is changed, and no secret is printed. Run it where the
    gateway runs, as the user it runs as.

    Exit codes: 0 no fault (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    import asyncio  # noqa: PLC0415

    from akoya_gateway.config.loader import load_config  # noqa: PLC0415
    from akoya_gateway.doctor.checks import examine  # noqa: PLC0415
    from akoya_gateway.upstream.http.tls import client_context  # noqa: PLC0415

    loaded = load_config(config)
    tls = {}
    for each in loaded.all_upstreams:
        try:
            tls[each.name] = client_context(each.tls)
        except OSError as error:
            click.echo(f"{each.place}.tls: the files cannot be used: {error}", err=True)
            raise SystemExit(1) from None
    findings = asyncio.run(examine(loaded, upstream_tls=tls, credentials=credentials))
    faults = sum(finding.verdict == "fault" for finding in findings)
    if form == "json":
        click.echo(json.dumps({"fine": not faults, "findings": [_fields(each) for each in findings]}, indent=2))
    else:
        _print(findings, faults)
    if faults:
        raise SystemExit(1)


def _print(findings: list[Finding], faults: int) -> None:
    colours = {"fine": "green", "warning": "yellow", "fault": "red"}
    verdicts = max(len(each.verdict.value) for each in findings)
    subjects = max(len(each.about) for each in findings)
    indent = " " * (verdicts + subjects + 2 * len(GAP))
    for each in findings:
        took = f" ({each.milliseconds:g} ms)" if each.milliseconds is not None else ""
        verdict = click.style(f"{each.verdict.value:{verdicts}}", fg=colours[each.verdict.value])
        click.echo(f"{verdict}{GAP}{each.about:{subjects}}{GAP}{each.says}{took}")
        if each.remedy:
            click.echo(indent + each.remedy)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    click.secho(f"{faults} fault(s), {warnings} warning(s)", fg="red" if faults else "green", bold=True)


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "about": finding.about,
        "verdict": finding.verdict.value,
        "says": finding.says,
        "remedy": finding.remedy,
        "milliseconds": finding.milliseconds,
    }
