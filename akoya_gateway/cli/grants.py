"""The command `akoya-gateway grants`. The output is in `grants_rendering`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from akoya_gateway.cli.group import Group
from akoya_gateway.cli.options import complete_names, config_option, format_option

if TYPE_CHECKING:
    from akoya_gateway.config.model import Config

BY = ("state", "connector", "environment")
STATES = ("live", "refreshing", "uncertain", "needs_reconnect", "revoked")

rows_option = format_option("A table for people, JSON lines, or CSV.", "csv")


def which(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select grants to a command."""
    for option in (
        click.option(
            "--state",
            type=click.Choice(STATES),
            help="Only grants in this state. Disconnected (revoked) ones are kept a day.",
        ),
        click.option(
            "--environment", shell_complete=complete_names("environments"), help="Only grants of this environment."
        ),
        click.option("--connector", shell_complete=complete_names("connectors"), help="Only grants of this connector."),
        click.option("--owner", help="Only grants of this owner."),
    ):
        command = option(command)
    return command


@click.group(cls=Group, no_args_is_help=True)
def grants() -> None:
    """List, inspect and revoke the grants of users. Tokens are never shown.

    Reads the store that the configuration names. Gateways may be running. Even a million grants are streamed and not
    held in memory.

    Exit codes: 0 fine, 1 a fault was found (no such grant, an unreadable record, or the store is unavailable), 2 wrong
    usage.
    """


@grants.command("list")
@config_option
@which
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N grants.")
@rows_option
def list_grants(config: Path, form: str, limit: int | None, **which: str | None) -> None:
    """List grants: owner, connector, environment, state, ages and reason, in no particular order."""
    from akoya_gateway.cli import grants_rendering  # noqa: PLC0415

    wanted = _wanted(**which)
    _run(config, lambda loaded: grants_rendering.list_all(loaded, wanted, form, limit))


@grants.command()
@config_option
@click.option(
    "--by",
    type=click.Choice(BY),
    multiple=True,
    help="Property to count by; may be repeated. By default all three.",
)
@which
@rows_option
def count(config: Path, by: tuple[str, ...], form: str, **which: str | None) -> None:
    """Count grants by state, connector and environment."""
    from akoya_gateway.cli import grants_rendering  # noqa: PLC0415

    wanted = _wanted(**which)
    columns = tuple(dict.fromkeys(by or BY))
    _run(config, lambda loaded: grants_rendering.count(loaded, wanted, columns, form))


@grants.command()
@click.argument("grant", metavar="ID")
@config_option
@format_option("Text for people, or one JSON object.")
def show(grant: str, config: Path, form: str) -> None:
    """Show one grant, by its ID from `list`, and who must do what about it.

    The beginning of the ID is enough if no other grant's ID begins with it.
    """
    from akoya_gateway.cli import grants_rendering  # noqa: PLC0415

    _run(config, lambda loaded: grants_rendering.show(loaded, grant, as_json=form == "json"))


@grants.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@config_option
@which
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation. Required without a terminal.")
def revoke(ids: tuple[str, ...], config: Path, yes: bool, **which: str | None) -> None:
    """End grants as if their users had disconnected: delete their tokens at once and revoke them at Akoya.

    Name grants by their IDs, or select them with the same options as in `list`, such as `--owner`.

    Running gateways stop using the grants within a second. If Akoya cannot be reached, the revocation is queued in the
    store and retried by the gateways.
    """
    from akoya_gateway.cli import grants_rendering  # noqa: PLC0415

    if bool(ids) == any(which.values()):
        raise click.UsageError("give the IDs of grants, or options that select grants")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("confirm with --yes: standard input is not a terminal")
    wanted = ids or _wanted(**which)
    _run(config, lambda loaded: grants_rendering.revoke(loaded, wanted, confirm=not yes), only_store=False)


def _wanted(owner: str | None, connector: str | None, environment: str | None, state: str | None) -> Any:
    from akoya_gateway.grants.grant import GrantState  # noqa: PLC0415
    from akoya_gateway.grants.listing import GrantFilter  # noqa: PLC0415

    return GrantFilter(owner, connector, None if state is None else GrantState(state), environment)


def _run(path: Path, work: Callable[[Config], Coroutine[Any, Any, int]], *, only_store: bool = True) -> None:
    """Load the configuration, run `work` with it, and exit with its result unless that is 0.

    If `only_store` is true, only the secrets of the store are read, because an operator's shell rarely has the others.
    """
    import asyncio  # noqa: PLC0415

    from akoya_gateway.config.loader import load_config  # noqa: PLC0415
    from akoya_gateway.config.reader import ALL_SECRETS  # noqa: PLC0415
    from akoya_gateway.errors import GatewayError  # noqa: PLC0415

    config = load_config(path, secrets=(("sessions",),) if only_store else ALL_SECRETS)
    try:
        code = asyncio.run(work(config))
    except GatewayError as error:
        click.echo(f"akoya-gateway: {error.detail or error.title}", err=True)
        code = 1
    if code:
        raise SystemExit(code)
