"""The command `akoya-gateway doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from akoya_gateway.cli.options import config_option, format_option
from akoya_gateway.cli.table import GAP

if TYPE_CHECKING:
    from akoya_gateway.doctor.check_result import CheckResult


@click.command()
@config_option
@click.option(
    "--credentials/--no-credentials",
    default=True,
    show_default=True,
    help="Try each client's secret at its token endpoint, with a code that cannot exist.",
)
@click.option("--grant", metavar="ID", help="Also call a data API with the token of this grant, once.")
@click.option(
    "--product",
    metavar="PATH",
    default="accounts-info",
    show_default=True,
    help="The product that --grant calls, with the rest of its path.",
)
@format_option("A table for people, or one JSON object.")
def doctor(config: Path, credentials: bool, grant: str | None, product: str, form: str) -> None:
    """Examine a live configuration: DNS, TLS, clocks, endpoints, credentials, redirect URI, store, upstreams.

    Contacts everything that the configuration names once. Changes nothing and prints no secret. Run it on the gateway's
    machine, as the gateway's user.

    Exit codes: 0 no fault (warnings allowed), 1 a fault was found, 2 wrong usage.
    """
    import asyncio  # noqa: PLC0415

    from akoya_gateway.config.loader import load_config  # noqa: PLC0415
    from akoya_gateway.doctor.checks import run_checks  # noqa: PLC0415
    from akoya_gateway.doctor.data_call import check_data_call  # noqa: PLC0415
    from akoya_gateway.upstream.http.tls import client_context  # noqa: PLC0415

    loaded = load_config(config)
    tls = {}
    for each in loaded.all_upstreams:
        try:
            tls[each.name] = client_context(each.tls)
        except OSError as error:
            click.echo(f"{each.address}.tls: the files cannot be used: {error}", err=True)
            raise SystemExit(1) from None
    findings = asyncio.run(run_checks(loaded, upstream_tls=tls, credentials=credentials))
    if grant is not None:
        findings = [*findings, asyncio.run(check_data_call(loaded, grant, product)).clean]
    faults = sum(result.verdict == "fault" for result in findings)
    if form == "json":
        click.echo(json.dumps({"fine": not faults, "findings": [_fields(each) for each in findings]}, indent=2))
    else:
        _print(findings, faults)
    if faults:
        raise SystemExit(1)


def _print(results: list[CheckResult], errors: int) -> None:
    colours = {"fine": "green", "warning": "yellow", "fault": "red"}
    verdicts = max(len(each.verdict.value) for each in results)
    subjects = max(len(each.about) for each in results)
    indent = " " * (verdicts + subjects + 2 * len(GAP))
    for each in results:
        took = f" ({each.milliseconds:g} ms)" if each.milliseconds is not None else ""
        verdict = click.style(f"{each.verdict.value:{verdicts}}", fg=colours[each.verdict.value])
        click.echo(f"{verdict}{GAP}{each.about:{subjects}}{GAP}{each.says}{took}")
        if each.remedy:
            click.echo(indent + each.remedy)
    warnings = sum(result.verdict == "warning" for result in results)
    click.secho(f"{errors} fault(s), {warnings} warning(s)", fg="red" if errors else "green", bold=True)


def _fields(result: CheckResult) -> dict[str, object]:
    return {
        "about": result.about,
        "verdict": result.verdict.value,
        "says": result.says,
        "remedy": result.remedy,
        "milliseconds": result.milliseconds,
    }
